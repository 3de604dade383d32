"""Puts documents of one family together: ways of running it that were traced one after another."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_ROUNDED = 6  # in place of a monomial: an index of ``rounded`` follows
_ALIKE = ("schema_version", "model_class", "stacks", "unit", "window", "fewest")

Document = Mapping[str, Any]


class _Table:
    """Values stored once, in the order in which they are met."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def index(self, value: Any) -> int:
        key = _frozen(value)
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value)
        return self._numbers[key]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class _Merged:
    """Tables of the new document, filled with what its setups use."""

    def __init__(self) -> None:
        self.products, self.rounded, self.polynomials = _Table(), _Table(), _Table()
        self.names, self.labels, self.sections = _Table(), _Table(), _Table()

    def polynomial(self, of: Document, number: int) -> int:
        terms = [
            [monomial, self._constant(of, index), coefficient]
            if monomial == _ROUNDED
            else [monomial, self.products.index(of["products"][index]), coefficient]
            for monomial, index, coefficient in of["polynomials"][number]
        ]
        return self.polynomials.index(terms)

    def _constant(self, of: Document, number: int) -> int:
        terms = of["rounded"][number]
        return self.rounded.index([[self.products.index(of["products"][p]), c] for p, c in terms])

    def section(self, of: Document, number: int) -> int:
        flops, gradient, labels, *levels = of["sections"][number]
        pairs = [[self.names.index(of["names"][n]) for n in pair] for pair in of["labels"][labels]]
        return self.sections.index(
            [
                self.polynomial(of, flops),
                self.polynomial(of, gradient),
                self.labels.index(pairs),
                *([self.polynomial(of, n) for n in level] for level in levels),
            ]
        )

    def fit(self, of: Document, fit: Mapping[str, Any]) -> dict[str, Any]:
        def pair(numbers: Sequence[int]) -> list[int]:
            return [self.section(of, number) for number in numbers]

        late = [
            self.polynomial(of, n)
            if isinstance(n, int)
            else [self.polynomial(of, one) for one in n]
            for n in fit["late"]
        ]
        blocks = [[pair(numbers) for numbers in stack] for stack in fit["blocks"]]
        return {**fit, "outside": list(map(pair, fit["outside"])), "blocks": blocks, "late": late}


def merged(
    documents: Iterable[Document], keeps: Callable[[Mapping[str, Any]], bool] = lambda of: True
) -> dict[str, Any]:
    """One document of several; of two that have a way of running, the later has it.

    Args:
        documents: of one structure, traced at the same widths.
        keeps: whether a way of running (``variant``, ``attention``, ``checkpointing``) is kept.
    """
    documents = list(documents)
    first = documents[0]
    for other in documents:
        if any(other.get(key) != first.get(key) for key in _ALIKE):
            raise ValueError(f"{other['name']}: other stacks or widths than {first['name']}")
    tables, setups = _Merged(), []
    for number, of in enumerate(documents):
        later = [_key(e) for d in documents[number + 1 :] for s in d["setups"] for e in s["of"]]
        for setup in of["setups"]:
            kept = [e for e in setup["of"] if _key(e) not in later and keeps(e)]
            if kept:
                fits = [tables.fit(of, fit) for fit in setup["fits"]]
                setups.append({"of": kept, "fits": fits})
    return {
        **documents[-1],
        "products": tables.products.values,
        "rounded": tables.rounded.values,
        "polynomials": tables.polynomials.values,
        "names": tables.names.values,
        "labels": tables.labels.values,
        "sections": tables.sections.values,
        "setups": setups,
    }


def _key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry["variant"], entry["attention"], entry["checkpointing"]
