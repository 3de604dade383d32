"""Where text leaves: no character steers a terminal, and no reader changes the exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.cli.streams import Outlet, escaped
from zero_sizer.util.terminal import columns, one_line

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "deepspeed_configs" / "demo.json")
CHECK = ["check", DEMO, "--model", "qwen2.5-7b", "--gpus-per-node", "8", "--gpu", "h100-80gb"]
STEERS = [*range(32), *range(127, 160), 0x200E, 0x202E, 0x2066, 0x2028, 0xFEFF, 0xD800, 0xE0041]


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_what_is_printed_is_printable_and_still_json(text):
    shown = escaped(json.dumps(text, ensure_ascii=False))
    assert json.loads(shown) == text
    assert not any(chr(code) in shown for code in STEERS if chr(code) not in "\t\n")
    shown.encode()


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_an_encoding_that_has_no_accents_gets_escapes(text):
    assert json.loads(escaped(json.dumps(text, ensure_ascii=False), "ascii")) == text
    assert escaped(text, "ascii").isascii()


def test_a_line_for_a_person_ends(capsys):
    outlet = Outlet(sys.stdout)
    outlet.write("a" * 3_000)
    outlet.write("b" * 3_000)
    outlet.write("c" * 3_000 + "\nnext\n")
    outlet.is_whole = True
    outlet.write("d" * 9_000)
    first, second, third = capsys.readouterr().out.split("\n")
    assert first == "a" * 3_000 + "b" * 1_000 + "..."
    assert second == "next"
    assert len(third) == 9_000


def test_a_name_stays_on_its_line():
    assert one_line("a\nb\r\n\tc\u2028d") == "a b c d"
    assert one_line("x" * 10, 5) == "xx..."


@pytest.mark.parametrize("stated", ["999999999", "9" * 5000, "²"])
def test_an_absurd_terminal_is_not_believed(monkeypatch, stated):
    monkeypatch.setenv("COLUMNS", stated)
    assert columns() <= 1_000


def shell(text, **environment):
    """(exit codes, standard error) of a pipeline; ``$CHECK`` is a check of a job."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = " ".join([sys.executable, "-m", "zero_sizer", *CHECK])
    done = subprocess.run(["bash", "-c", text.replace("$CHECK", command)], env=variables,
                          capture_output=True, text=True, check=False)  # fmt: skip
    return done.stdout.split(), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--format json", "--timeline"])
@pytest.mark.parametrize("verdict", ["", "--gpu-memory 2GiB"])
def test_a_reader_that_is_gone_does_not_change_the_verdict(options, verdict):
    codes, said = shell(f"$CHECK {verdict} {options} | true; echo ${{PIPESTATUS[0]}}")
    assert said == ""
    assert codes == ["1" if verdict else "0"]


@pytest.mark.slow
def test_closed_streams_do_not_change_the_verdict():
    assert shell("$CHECK >&-; echo $?") == (["0"], "")
    assert shell("$CHECK 2>&- >/dev/null; echo $?") == (["0"], "")
    assert shell("$CHECK --nonsense 2>&-; echo $?") == (["2"], "")
    codes, said = shell("$CHECK --gpu-memory 2GiB >/dev/full; echo $?")
    assert codes == ["2"]
    assert "No space left" in said
    assert said.count("\n") == 1


def test_a_locale_without_accents_is_no_trouble():
    codes, said = shell("$CHECK --gpu 'h100é' >/dev/null; echo $?", LC_ALL="C", PYTHONUTF8="0",
                        PYTHONCOERCECLOCALE="0")  # fmt: skip
    assert codes == ["2"]
    assert said.isascii()
    assert said.count("\n") == 1
