"""Answers of one question about many jobs, as rows of a table."""

from collections.abc import Iterator, Sequence
from typing import Any, overload

from zero_sizer.api.display import table
from zero_sizer.api.results import Result


class Sweep(Sequence[dict[str, Any]]):
    """One row a job: the values that differ, then the figures of its answer.

    ``pandas.DataFrame(sweep)`` makes a table of it.

    Attributes:
        results: the answers, in the same order.
    """

    def __init__(self, found: Sequence[tuple[dict[str, Any], Result]]) -> None:
        self.results: tuple[Result, ...] = tuple(result for _, result in found)
        self._rows = [
            {**{name: _named(value) for name, value in values.items()}, **result.row()}
            for values, result in found
        ]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Row of that number."""
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return "\n".join(repr(row) for row in self._rows)

    def _repr_html_(self) -> str:
        return table(list(self._rows[0]), [list(row.values()) for row in self._rows])


def _named(value: Any) -> Any:
    """The value in a cell; a mapping is what is in it."""
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
