"""argparse, whose errors are one line with a remedy like everybody else's."""

import argparse
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn

_UNKNOWN = re.compile(r"unrecognized arguments: (-\S+)")
_CHOICE = re.compile(r"invalid choice: '?(.*?)'? \(choose from (.*)\)$", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """A parser whose ``error`` prints no usage; the exit code stays 2."""

    def error(self, message: str) -> NoReturn:
        """Print one line, and leave."""
        line = message.removeprefix("argument ")
        print(f"zero-sizer: {line} ({self._remedy(message)})", file=sys.stderr)
        raise SystemExit(2)

    def _remedy(self, message: str) -> str:
        unknown, choice = _UNKNOWN.search(message), _CHOICE.search(message)
        near: list[str] = []
        if unknown:
            near = get_close_matches(unknown[1].partition("=")[0], self._options(), n=1)
        elif choice:
            known = [word.strip(" '") for word in choice[2].split(",")]
            near = get_close_matches(choice[1], known, n=1)
        if near:
            return f"did you mean {near[0]}?"
        return f"`{self.prog} -h` lists what there is"

    def _options(self) -> Iterable[str]:
        return self._option_string_actions
