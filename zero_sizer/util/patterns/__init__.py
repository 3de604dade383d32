"""Regular expressions that a file names: what ``re`` would answer, in bounded work.

``re`` tries one way through a pattern after the other, and a short pattern may have more ways than
there is time. A pattern whose ways are few on the text at hand goes to ``re``; any other goes to
a matcher that visits each of its states once at each place of the text. Both are charged to a
budget, so what is still too much is refused rather than waited for.
"""

import re
import warnings
from typing import Any

from zero_sizer.util.patterns.cost import cost
from zero_sizer.util.patterns.machine import Machine, TooLargeError

MAX_LENGTH = 10_000
"""Characters of one pattern."""
_FOR_RE = 200_000  # most elementary steps (1 to 2 ns) that `re` may need for one text
_STEP = 1_000  # what a step of ours costs, in those of `re`
_BUDGET = 1_000_000_000  # one to two seconds at worst


class PatternError(ValueError):
    """No regular expression, or one that is not read; the message says why in a few words."""


class Budget:
    """Elementary steps that some patterns may take together."""

    def __init__(self, steps: int = _BUDGET) -> None:
        self.left = steps

    def charge(self, steps: int) -> None:
        """Count ``steps``.

        Raises:
            PatternError: too many, all in all.
        """
        self.left -= steps
        if self.left <= 0:
            raise PatternError("takes too long on this model's names")


class Pattern:
    """A compiled pattern."""

    def __init__(self, text: str, budget: Budget | None = None) -> None:
        """Compile.

        Args:
            text: the whole pattern, with whatever is put around the user's part.
            budget: shared with other patterns; its own where not given.

        Raises:
            PatternError: see there.
        """
        self.text = text
        self._budget = budget or Budget()
        self._machine: Machine | None = None
        self._costs: dict[int, float] = {}
        if len(text) > MAX_LENGTH:
            raise PatternError(f"is longer than {MAX_LENGTH:,} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._compiled = re.compile(text)
                self._tree = _parse(text)
        except re.error as error:
            raise PatternError(f"is no regular expression: {error}") from None
        except RecursionError:
            raise PatternError("is nested too deeply") from None
        except (OverflowError, MemoryError, ValueError) as error:
            raise PatternError(f"cannot be read: {str(error) or type(error).__name__}") from None

    def matches(self, text: str) -> bool:
        """True if the pattern matches at the start of ``text`` (``re.match``)."""
        return self.groups(text) is not None

    def matches_all(self, text: str) -> bool:
        """True if the pattern matches the whole of ``text`` (``re.fullmatch``)."""
        return self.groups(text, whole=True) is not None

    def groups(self, text: str, *, whole: bool = False) -> tuple[str | None, ...] | None:
        """The groups of the match that ``re`` would find, None where there is none.

        Groups within a look-ahead, and of empty turns of a loop, may be left out.

        Raises:
            PatternError: it would take too long.
        """
        steps = self._costs.get(len(text))
        if steps is None:
            steps = self._costs[len(text)] = cost(self._tree, len(text))
        if steps <= _FOR_RE:
            self._budget.charge(int(steps))
            found = (self._compiled.fullmatch if whole else self._compiled.match)(text)
            return found.groups() if found else None
        try:
            if self._machine is None:
                self._machine = Machine(self._tree, self._compiled.groups)
            most = self._budget.left // _STEP
            result, done = self._machine.run(text, whole=whole, most=most)
        except TooLargeError as error:
            raise PatternError(str(error)) from None
        except RecursionError:
            raise PatternError("is nested too deeply") from None
        self._budget.charge(done * _STEP)
        return result


def _parse(text: str) -> Any:
    from re import _parser  # type: ignore[attr-defined]  # the tree that re compiles from

    return _parser.parse(text)
