"""``completion``: bash itself completes with what is printed."""

import subprocess
import sys

import pytest

from zero_sizer import cli
from zero_sizer.cli.command import _COMMANDS
from zero_sizer.hardware.catalog import all_gpus

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p zero-sizer | sed 's/.* -F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    script = folder / "zero-sizer.bash"
    command = [sys.executable, "-m", "zero_sizer", "completion", "bash"]
    script.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (folder / "ds.json").write_text("{}")

    def ask(*words):
        done = subprocess.run(
            ["bash", "-c", ASK, "bash", str(script), "zero-sizer", *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        return {line for line in done.stdout.splitlines() if line}

    return ask


def test_every_command_is_completed(complete):
    assert set(_COMMANDS) <= complete("")
    assert complete("cho") == {"choose"}


def test_options_names_and_files_are_completed(complete):
    assert "--cluster-profile" in complete("check", "--cluster")
    assert complete("check", "--gpu", "h100") == {
        gpu.name for gpu in all_gpus() if gpu.name.startswith("h100")
    }
    assert "llama-3-8b" in complete("size", "--model", "llama-3")
    assert complete("check", "--attention", "") == {"flash", "sdpa", "eager"}
    assert "ds.json" in complete("check", "d")
    assert "ds.json" in complete("check", "--hostfile", "d")


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "zsh"]) == 3
    assert "pip install 'zero-sizer[completion]'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_a_script_too(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "--cluster-profile" in capsys.readouterr().out
