"""argparse, whose errors are one line with a remedy like everybody else's."""

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from zero_sizer.util.spelling import did_you_mean
from zero_sizer.util.terminal import columns, one_line

_UNKNOWN = re.compile(r"unrecognized arguments: (-\S+)")
_CHOICE = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)$", re.DOTALL)


_MOST_CHOICES = 24  # characters of choices that stand beside an option; more go into its help


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if _choices(action):
            return lambda size: (default_metavar,) * size
        return super()._metavar_formatter(action, default_metavar)

    def _expand_help(self, action: argparse.Action) -> str:
        choices = _choices(action)
        text = super()._expand_help(action)
        return text if not choices or choices in text else f"{text} ({choices})"


def _choices(action: argparse.Action) -> str:
    """Choices of an option that are too many to stand beside it; empty for any other."""
    named = action.metavar is None and action.choices and action.option_strings
    text = ", ".join(map(str, action.choices or ())) if named else ""
    return text if len(text) > _MOST_CHOICES else ""


class Parser(argparse.ArgumentParser):
    """A parser whose ``error`` prints no usage; the exit code stays 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **options})
        self.example_of: str | None = None

    def format_help(self) -> str:
        """The help, with examples of the command at its end."""
        text = super().format_help()
        if self.example_of is None:
            return text
        from zero_sizer.cli.examples import EXAMPLES

        lines = "\n".join(f"  {line}" for line in EXAMPLES[self.example_of])
        return f"{text}\nexamples:\n{lines}\n"

    def error(self, message: str) -> NoReturn:
        """Print one line, and leave."""
        line = message.removeprefix("argument ")
        if sys.stderr is not None:
            print(f"zero-sizer: {one_line(line)} ({self._remedy(message)})", file=sys.stderr)
        raise SystemExit(2)

    def _remedy(self, message: str) -> str:
        unknown, choice = _UNKNOWN.search(message), _CHOICE.search(message)
        hint = ""
        if unknown:
            hint = self._meant(unknown[1].partition("=")[0])
        elif choice:
            hint = did_you_mean(choice[1], [word.strip(" '") for word in choice[2].split(",")])
        return hint or f"`{self.prog} -h` lists what there is"

    def _meant(self, option: str) -> str:
        """A question about the option of ours that one of a launcher or script says, or nearly."""
        from zero_sizer.launchers.arguments import field_of  # only where something is wrong

        field = field_of(option)
        own = f"--{field.replace('_', '-')}" if field else ""
        known = list(self._options())
        return f"did you mean {own}?" if own in known else did_you_mean(option, known)

    def _options(self) -> Iterable[str]:
        return self._option_string_actions
