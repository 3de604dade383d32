"""Help: examples that work, ways to ask for it, widths."""

import itertools
import re
import shlex
from importlib import import_module

import pytest

from zero_sizer import __version__, cli
from zero_sizer.advise.limits import MARGINS
from zero_sizer.cli.command import _COMMANDS, _split_script
from zero_sizer.cli.examples import EXAMPLES
from zero_sizer.cli.parser import Parser

LINES = [(command, line) for command in EXAMPLES for line in EXAMPLES[command]]


def asked(capsys, *words):
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    return left.value.code, capsys.readouterr()


def test_every_command_has_examples():
    assert set(EXAMPLES) == {"", *_COMMANDS}


@pytest.mark.parametrize(("command", "line"), LINES)
def test_an_example_is_a_line_that_is_understood(command, line):
    words = shlex.split(line.rpartition("| ")[2])
    assert words[0] == "zero-sizer"
    name, *rest = words[1:]
    assert command in ("", name)
    own, _ = _split_script([name, *rest])
    parser = Parser()
    import_module(f"zero_sizer.cli.{name}").configure(parser)
    parser.parse_args(own[1:])
    for flag, value in itertools.pairwise(own):
        if flag == "--model" and "/" not in value:
            from zero_sizer import models

            models.load(value)
        if flag == "--gpu":
            from zero_sizer.hardware import catalog

            catalog.find(value)


@pytest.mark.parametrize("command", _COMMANDS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_help_has_examples_and_keeps_to_the_width(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    code, said = asked(capsys, command, "--help")
    assert code == 0
    text, _, examples = said.out.partition("\nexamples:\n")
    assert examples.startswith(f"  {EXAMPLES[command][0]}")  # whole, to be copied
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_choice_is_in_the_help(command):
    parser = Parser()
    import_module(f"zero_sizer.cli.{command}").configure(parser)
    text = parser.format_help()
    for action in parser._actions:
        assert all(str(choice) in text for choice in action.choices or ()), action.dest


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_argument_that_is_needed_stands_in_the_usage(command):
    parser = Parser(prog="x")
    import_module(f"zero_sizer.cli.{command}").configure(parser)
    needed = [a for a in parser._actions if a.required]
    usage = parser.format_usage()
    assert all((a.metavar or a.option_strings[-1]) in usage for a in needed)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_option_has_a_word_and_the_margin_its_default(command):
    parser = Parser()
    import_module(f"zero_sizer.cli.{command}").configure(parser)
    about = {action.dest: action.help for action in parser._actions}
    assert [name for name, text in about.items() if not text] == []
    if "margin" in about:
        shares = re.findall(r"([\d.]+) of (\w+)", about["margin"])
        assert [(float(part), word) for part, word in shares] == [
            (part, device.value) for device, part in MARGINS.items()
        ]


def test_alone_it_shows_its_help_and_is_no_success(capsys):
    code, said = asked(capsys)
    assert (code, said.out) == (2, "")
    assert said.err == asked(capsys, "--help")[1].out


def test_help_of_a_command_by_its_name(capsys):
    assert asked(capsys, "help", "check") == asked(capsys, "check", "--help")
    assert asked(capsys, "help") == asked(capsys, "--help")
    code, said = asked(capsys, "help", "chek")
    assert code == 2
    assert "did you mean check?" in said.err


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(flag, capsys):
    code, said = asked(capsys, flag)
    assert (code, said.out) == (0, f"zero-sizer {__version__}\n")


def test_no_color_is_honoured(monkeypatch):
    """The progress bar alone has colours; on a terminal that asks for none it has none."""
    import io
    import sys

    from zero_sizer.cli.progress import Progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    drawn = {}
    for value in ("", "1"):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("NO_COLOR", value) if value else monkeypatch.delenv("NO_COLOR", False)
        with Progress("working", 3, patience=0) as bar:
            bar.tick()
        drawn[value] = stream.getvalue()
    assert "\x1b[38" in drawn[""] or "\x1b[3" in drawn[""]
    assert "\x1b[3" not in drawn["1"]
