"""Colour where a terminal takes it, and nowhere else."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.cli.streams import Outlet

CODES = re.compile("\033\\[[0-9;]*m")
DEMO = Path(__file__).parents[2] / "deepspeed_configs" / "demo.json"
COMMAND = [*(sys.executable, "-m", "zero_sizer", "check", str(DEMO)), "--model", "gpt2"]


class Terminal(io.StringIO):
    """A stream that says it is one."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def shown(text, stream=None):
    stream = stream or Terminal()
    Outlet(stream).write(text)
    return stream.getvalue()


WORDS = st.sampled_from(["FITS", "FITSO", "note:", "error: x", "COULD NOT TELL", "\n", " ", "\033"])


def test_only_colour_is_added_and_only_where_a_line_starts():
    @given(st.lists(WORDS).map("".join))
    def holds(text):
        assert CODES.sub("", shown(text)) == shown(text, io.StringIO())

    holds()
    assert shown("FITS  1 of 2\n FITS\nFITSO") == "\033[1;32mFITS\033[0m  1 of 2\n FITS\nFITSO"
    assert shown("note: a file says error: x") == "\033[36mnote:\033[0m a file says error: x"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_it_can_be_switched_off(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert shown("FITS") == "FITS"


def test_a_document_is_never_coloured(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    outlet = Outlet(stream)
    outlet.is_whole = True
    outlet.write("FITS")
    assert stream.getvalue() == "FITS"


def test_a_real_terminal_gets_it_and_a_pipe_does_not():
    ours, theirs = pty.openpty()
    with subprocess.Popen(COMMAND, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        try:
            while more := os.read(ours, 65536):
                seen += more
        except OSError:  # Linux: the other end is closed
            pass
        os.close(ours)
    done = subprocess.run(COMMAND, capture_output=True, check=False)
    assert process.returncode == done.returncode != 2
    assert any(line.startswith(b"\033[") for line in seen.splitlines())
    assert b"\033" not in done.stdout + done.stderr
