"""A backtracking matcher that is never twice in the same state at the same place.

The states are those of a Thompson automaton, tried in the order in which ``re`` would try them, so
the first match is ``re``'s. What has failed once fails again, hence at most states x (characters
+ 1) steps. Not read: what refers back to a group, whose outcome hangs on more than the state.
"""

import warnings
from typing import Any, NamedTuple

_MAX_STATES = 20_000
_ONE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN"})


class TooLargeError(ValueError):
    """The pattern has too many states, needs too many steps, or refers back to a group."""


class _State(NamedTuple):
    """One instruction: ``char``, ``split``, ``save``, ``at``, ``look`` or ``match``."""

    kind: str
    value: Any = None
    targets: tuple[int, ...] = ()


class Machine:
    """The automaton of a parsed pattern."""

    def __init__(self, tree: Any, num_groups: int) -> None:
        """Build it from the tree of ``re``'s parser.

        Raises:
            TooLargeError: too many states, or a part that is not read.
        """
        self._state = tree.state
        self._flags = int(tree.state.flags)
        self._groups = range(1, num_groups + 1)
        self._states: list[_State] = []
        self._answers: dict[tuple[int, str], bool] = {}
        self._tests: list[Any] = []
        self._start = self._sequence(tree, self._add(_State("match")), self._flags)

    def run(
        self, text: str, *, whole: bool, most: int
    ) -> tuple[tuple[str | None, ...] | None, int]:
        """The groups of the first match at the start of ``text`` (None without), and steps taken.

        Raises:
            TooLargeError: more than ``most`` steps.
        """
        self._text, self._steps, self._most = text, 0, most
        marks = self._search(self._start, 0, whole=whole)
        if marks is None:
            return None, self._steps
        spans = [(marks.get(2 * g, -1), marks.get(2 * g + 1, -1)) for g in self._groups]
        groups = [None if min(span) < 0 else text[span[0] : span[1]] for span in spans]
        return tuple(groups), self._steps

    # Building, from the end backwards: each part is told where it goes on.

    def _add(self, state: _State) -> int:
        if len(self._states) >= _MAX_STATES:
            raise TooLargeError("is too large to be matched in bounded time")
        self._states.append(state)
        return len(self._states) - 1

    def _sequence(self, items: Any, after: int, flags: int) -> int:
        for item in reversed(list(items)):
            after = self._part(item, after, flags)
        return after

    def _part(self, item: Any, after: int, flags: int) -> int:
        kind, value = str(item[0]), item[1]
        if kind in _ONE:
            return self._add(_State("char", self._test(item, flags), (after,)))
        if kind == "AT":
            return self._add(_State("at", (self._test(item, flags), str(value)), (after,)))
        if kind == "BRANCH":
            starts = tuple(self._sequence(items, after, flags) for items in value[1])
            return self._add(_State("split", None, starts))
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeat(value, after, flags, is_greedy=kind == "MAX_REPEAT")
        if kind == "SUBPATTERN":
            return self._group(value, after, flags)
        if kind in ("ASSERT", "ASSERT_NOT"):
            back = value[1].getwidth()[0] if value[0] < 0 else 0
            inner = self._sequence(value[1], self._add(_State("match")), flags)
            return self._add(_State("look", (inner, int(back), kind == "ASSERT"), (after,)))
        raise TooLargeError("holds a part that cannot be matched in bounded time")

    def _group(self, value: Any, after: int, flags: int) -> int:
        group, add, remove, items = value
        inside = (flags | int(add)) & ~int(remove)
        if group is None:
            return self._sequence(items, after, inside)
        end = self._add(_State("save", 2 * group + 1, (after,)))
        return self._add(_State("save", 2 * group, (self._sequence(items, end, inside),)))

    def _repeat(self, value: Any, after: int, flags: int, *, is_greedy: bool) -> int:
        least, most, items = value

        def choice(inside: int, outside: int) -> tuple[int, ...]:
            return (inside, outside) if is_greedy else (outside, inside)

        if str(most) == "MAXREPEAT":
            loop = self._add(_State("split"))  # filled in when its body is there
            body = self._sequence(items, loop, flags)
            self._states[loop] = _State("split", None, choice(body, after))
            start = loop
        else:
            start = after
            for _ in range(int(most) - least):
                start = self._add(
                    _State("split", None, choice(self._sequence(items, start, flags), after))
                )
        for _ in range(least):
            before = len(self._states)
            start = self._sequence(items, start, flags)
            if len(self._states) == before:
                break  # an empty body
        return start

    def _test(self, item: Any, flags: int) -> int:
        """A single part, compiled by ``re`` itself."""
        from re import _compiler, _parser  # type: ignore[attr-defined]

        state = _parser.State()
        state.flags, state.str = flags, ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._tests.append(_compiler.compile(_parser.SubPattern(state, [item]), flags))
        return len(self._tests) - 1

    # Matching.

    def _search(self, start: int, at: int, *, whole: bool) -> dict[int, int] | None:
        """Marks of the first way that ends; None where none does."""
        marks: dict[int, int] = {}
        seen: set[tuple[int, int]] = set()
        todo: list[tuple[int, int]] = [(start, at)]
        while todo:
            index, at = todo.pop()
            if index < 0:  # on the way back: the mark is what it was
                marks[~index] = at
                continue
            if (index, at) in seen:
                continue
            seen.add((index, at))
            self._steps += 1
            if self._steps > self._most:
                raise TooLargeError("takes too long on this model's names")
            state = self._states[index]
            if state.kind != "match":
                todo += self._after(state, at, marks)
            elif not whole or at == len(self._text):
                return marks
        return None

    def _after(self, state: _State, at: int, marks: dict[int, int]) -> list[tuple[int, int]]:
        """Where it goes on, what is to be tried first last."""
        kind, value, targets = state
        if kind == "split":
            return [(target, at) for target in reversed(targets)]
        if kind == "save":
            before, marks[value] = marks.get(value, -1), at
            return [(~value, before), (targets[0], at)]
        if kind == "char":
            fits = at < len(self._text) and self._takes(value, self._text[at])
            return [(targets[0], at + 1)] if fits else []
        return [(targets[0], at)] if self._holds(kind, value, at) else []

    def _takes(self, test: int, char: str) -> bool:
        answer = self._answers.get((test, char))
        if answer is None:
            answer = bool(self._tests[test].match(char))
            self._answers[test, char] = answer
        return answer

    def _holds(self, kind: str, value: Any, at: int) -> bool:
        if kind == "at":
            return bool(self._tests[value[0]].match(self._text, at))
        inner, back, is_wanted = value
        found = at >= back and self._search(inner, at - back, whole=False) is not None
        return found is bool(is_wanted)
