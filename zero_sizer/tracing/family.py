"""A family's profile: one structure traced at several widths (``activations.structure``)."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import combinations
from math import prod
from typing import Any

import torch

from zero_sizer.errors import UnsupportedError, WitnessError
from zero_sizer.tracing import fitted, symbolic
from zero_sizer.tracing.encode import SCHEMA_VERSION, Encoder
from zero_sizer.tracing.fitted import FittedStack, Range
from zero_sizer.tracing.profile import all_setups, head_of
from zero_sizer.tracing.setups import (
    FittedRange,
    Points,
    Setup,
    Tracer,
    points_that_differ,
    traced,
    traces_at,
)
from zero_sizer.tracing.step import Trace
from zero_sizer.tracing.symbolic import Poly
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass

Products = tuple[tuple[str, ...], ...]
UNIT = 40  # coefficients are fortieths: a part of a head may be rotated
PRODUCTS: Products = (
    (),
    ("hidden",),
    ("ffn",),
    ("heads", "head_dim"),
    ("kv_heads", "head_dim"),
    ("vocab",),
    ("heads",),
    ("kv_heads",),
    ("head_dim",),
    ("experts",),
    ("experts_per_token",),
    ("experts_per_token", "hidden"),
    ("experts_per_token", "expert_ffn"),
    ("experts_per_token", "hidden", "expert_ffn"),
    ("hidden", "hidden"),
    ("hidden", "ffn"),
    ("hidden", "heads", "head_dim"),
    ("hidden", "kv_heads", "head_dim"),
    ("hidden", "head_dim"),
    ("hidden", "vocab"),
    ("hidden", "positions"),
    ("experts", "hidden"),
    ("experts", "hidden", "expert_ffn"),
)
_ORDER = (1, 2, 3, 0, 4, 5)  # where symbolic's monomials stand in a profile's polynomials
_MOST_CONSTANTS = 96
_LARGEST = 128 * UNIT  # of a coefficient: few copies, or T5's 32 buckets of positions in fp32


@dataclass(frozen=True)
class _Sized:
    """One range of one setup at one set of widths."""

    where: Range
    trace: Trace
    sizes: list[Poly]
    flops: fitted.Flops
    owners: frozenset[str]


class Solver:
    """Finds which widths a size is a product of.

    Args:
        widths: at which the family was traced.
        products: that a size may be.
    """

    def __init__(self, widths: Sequence[Mapping[str, int]], products: Products = PRODUCTS) -> None:
        self.products = products
        self._values = [
            [prod(of[name] for name in product) for of in widths] for product in products
        ]
        self._known: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = {}
        for (one, x), (other, y) in combinations(enumerate(self._values), 2):
            if all((*x, *y)) and len({Fraction(u, v) for u, v in zip(x, y, strict=True)}) == 1:
                self._allow(products[one], products[other], Fraction(x[0], y[0]))

    @staticmethod
    def _allow(one: tuple[str, ...], other: tuple[str, ...], ratio: Fraction) -> None:
        """Equal ones are equal in every model of the structure; of some ffn is 4 x hidden."""
        if ratio != 1 and not (ratio in (4, Fraction(1, 4)) and "ffn" in (*one, *other)):
            raise WitnessError(f"{one} and {other} cannot be told apart at these widths")

    def terms(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """(product, coefficient x ``UNIT``), one or two of them.

        Args:
            sizes: one for each set of widths.

        Raises:
            WitnessError: no such sum gives them all.
        """
        found = self._known.get(sizes)
        if found is None:
            found = self._known[sizes] = self._one(sizes) or self._two(sizes)
        return found

    def _one(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        for product, values in enumerate(self._values):
            if not all(values):
                continue
            ratios = {Fraction(size, value) for size, value in zip(sizes, values, strict=True)}
            ratio = ratios.pop()
            coefficient = None if ratios else _coefficient(abs(ratio))
            if coefficient is not None:  # negative: 2 x sequence - 1 distances of positions
                return ((product, coefficient if ratio > 0 else -coefficient),)
        return ()

    def _two(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        rows = list(enumerate(self._values))
        for (first, x), (second, y) in combinations(rows, 2):
            divisor = x[0] * y[1] - x[1] * y[0]
            if not divisor or not all((*x, *y)):
                continue
            a = Fraction(sizes[0] * y[1] - sizes[1] * y[0], divisor)
            b = Fraction(x[0] * sizes[1] - x[1] * sizes[0], divisor)
            if any(a * u + b * v != size for u, v, size in zip(x, y, sizes, strict=True)):
                continue
            of_first, of_second = _coefficient(a), _coefficient(b)
            if of_first is not None and of_second is not None:
                return (first, of_first), (second, of_second)
        raise WitnessError(f"sizes that are no product of widths: {sizes}")


def _coefficient(ratio: Fraction) -> int | None:
    scaled = ratio * UNIT
    return int(scaled) if scaled.denominator == 1 and 0 < scaled <= _LARGEST else None


def trace_family(  # noqa: PLR0913 (a structure, and what it is made of)
    members: Sequence[tuple[Mapping[str, Any], Mapping[str, int]]],
    *,
    name: str,
    realistic: Sequence[Mapping[str, int]],
    window: int | None,
    has_biases: bool,
    kinds: Sequence[int] = (),
    products: Products = PRODUCTS,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Traces one structure at the widths of its ``members``.

    Args:
        members: fields of a config.json, and its widths (``profiles.family.widths_of``); the last
            is what the others' fit must give, too.
        name: what to call it.
        realistic: widths at which peaks are told apart.
        window: tokens of the members' window of attention.
        has_biases: linear layers have some.
        kinds: which kind each block is, where blocks differ in any order: all are traced.
        products: of widths that a size may be.
        report: told about each setup.

    Raises:
        UnsupportedError: transformers trains none of them.
        WitnessError: the members differ in more than sizes.
    """
    tracers = [Tracer(fields, whole=bool(kinds)) for fields, _ in members]
    gc.freeze()  # what is imported by now stays; each trace collects what it made
    stacks = [replace(s, kinds=tuple(kinds)) for s in tracers[0].stacks]
    encoder = Encoder(stacks, partial(sparse, count=len(products)))
    constants = Constants()
    solver = Solver([widths for _, widths in members], products)
    whole = Assembly(solver, constants, Envelope(realistic, constants, products))
    seen: dict[Any, list[FittedRange]] = {}
    for setup in all_setups(is_changed=False, has_biases=has_biases):
        try:
            key = (setup.variant, setup.checkpointing, tracers[0].probe(setup))
        except UnsupportedError:
            continue
        if key not in seen:
            known: list[_Traces] = [{} for _ in tracers]
            ranges = _ranges(tracers[:1] if kinds else tracers, setup, known)
            rows = [list(_sized(*of, setup, ranges)) for of in zip(tracers, known, strict=True)]
            seen[key] = [whole.fit(sized) for sized in zip(*rows, strict=True)]
        encoder.add(setup, seen[key])
        report(f"{name}: {setup.variant}, {setup.attention}, checkpointing {setup.checkpointing}")
    if not seen:
        raise UnsupportedError(f"{name}: trained in no way")
    return {
        **encoder.document(head_of(name, "", tracers[0].model_class)),
        "schema_version": SCHEMA_VERSION,
        "unit": UNIT,
        "products": [list(product) for product in products],
        "rounded": [[list(term) for term in terms] for terms in constants.numbers],
        "window": window,
    }


_Traces = dict[tuple[int, int], Trace]


def _remembered(trace: Callable[[int, int], Trace], known: _Traces) -> Callable[[int, int], Trace]:
    """The function that traces, which takes what was traced before from ``known``."""

    def at(b: int, s: int) -> Trace:
        if (b, s) not in known:
            known[b, s] = trace(b, s)
        return known[b, s]

    return at


def _ranges(tracers: Sequence[Tracer], setup: Setup, known: Sequence[_Traces]) -> list[Points]:
    """Where the fits hold: one sample apart wherever its trace is another at any widths."""
    found: dict[Range, Points] = {}
    for tracer, traces in zip(tracers, known, strict=False):
        with traced(tracer.subject, setup) as (trace, owners):
            for window in tracer.ranges():
                for points in points_that_differ(_remembered(trace, traces), owners, window):
                    found[points.where] = points
    return sorted(found.values(), key=lambda p: (p.where.sequences, p.where.with_batch))


def _sized(
    tracer: Tracer, known: _Traces, setup: Setup, ranges: Sequence[Points]
) -> Iterator[_Sized]:
    with traced(tracer.subject, setup) as (trace, owners):
        for points in ranges:
            yield _at(_remembered(trace, known), owners, points)


def _at(trace: Callable[[int, int], Trace], owners: frozenset[str], points: Points) -> _Sized:
    traces = traces_at(trace, points)
    sizes, flops = fitted.fit_sizes(traces, points.held_out, points.where)
    return _Sized(points.where, next(iter(traces.values())), sizes, flops, owners)


class Constants:
    """Sizes that neither batch nor sequence change: each is rounded up before they are added."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[tuple[int, int], ...], int] = {}

    def index(self, terms: tuple[tuple[int, int], ...]) -> int:
        """Where the size made of ``terms`` stands among them."""
        found = self.numbers.setdefault(terms, len(self.numbers))
        if found >= _MOST_CONSTANTS:
            raise WitnessError("too many constant sizes")
        return found

    def values(self, products: Sequence[int]) -> list[int]:
        """Bytes of each at some widths, ``_MOST_CONSTANTS`` of them."""
        found = [
            round_up(sum(c * products[p] for p, c in terms) // UNIT, fitted.BLOCK) * UNIT
            for terms in self.numbers
        ]
        return found + [0] * (_MOST_CONSTANTS - len(found))


class Assembly:
    """Puts sizes at several widths together."""

    def __init__(self, solver: Solver, constants: Constants, envelope: "Envelope") -> None:
        self._solver = solver
        self._constants = constants
        self._envelope = envelope

    def fit(self, sized: Sequence[_Sized]) -> FittedRange:
        """One range of one setup, whatever the widths."""
        first = sized[0]
        traces = {(number, 0): found.trace for number, found in enumerate(sized)}
        fitted.check_alike(traces)
        if any(s.where != first.where for s in sized):
            raise WitnessError("ranges that depend on widths")
        sizes = [self.wide(polys) for polys in zip(*(s.sizes for s in sized), strict=True)]
        flops = [
            (rows[0][0], self.wide(tuple(poly for _, poly in rows)))
            for rows in zip(*(s.flops for s in sized), strict=True)
        ]
        stack: FittedStack = fitted.put_together(
            first.trace, sizes, flops, first.owners, self._envelope.of
        )
        return FittedRange(where=first.where, stack=stack)

    def wide(self, polys: tuple[Poly, ...]) -> Poly:
        """One size as coefficients of monomial x product."""
        count = len(self._solver.products)
        plain = len(_ORDER) * count
        found = [0] * (plain + _MOST_CONSTANTS)
        first = tuple(poly[0] for poly in polys)
        if any(first) and not any(any(poly[1:]) for poly in polys):
            found[plain + self._constants.index(self._solver.terms(first))] = 1
            return tuple(found)
        for monomial, coefficients in enumerate(zip(*polys, strict=True)):
            if any(coefficients):
                for product, coefficient in self._solver.terms(coefficients):
                    found[monomial * count + product] = coefficient
        return tuple(found)


class Envelope:
    """Which of some levels are the highest somewhere."""

    _BATCHES = (1, 2, 4, 8, 16, 64)
    _SEQUENCES = (64, 256, 512, 1024, 2048, 4096, 8192, 32768, 131072)

    def __init__(
        self,
        realistic: Sequence[Mapping[str, int]],
        constants: Constants,
        products: Products = PRODUCTS,
    ) -> None:
        self._products = [
            [prod(widths[name] for name in product) for product in products] for widths in realistic
        ]
        self._constants = constants
        self._known = -1
        self._samples = torch.zeros(0)

    def of(self, levels: Sequence[Poly]) -> Sequence[Poly]:
        """Sizes that no other exceeds wherever a model may be."""
        found = symbolic.undominated(levels)
        if len(found) == 1:
            return found
        if self._known != len(self._constants.numbers):
            self._known = len(self._constants.numbers)
            self._samples = torch.tensor(list(self._rows()), dtype=torch.float64).T
        values = torch.tensor(found, dtype=torch.float64) @ self._samples
        return [found[index] for index in sorted(set(values.argmax(dim=0).tolist()))]

    def _rows(self) -> Iterator[list[int]]:
        for products in self._products:
            rounded = self._constants.values(products)
            for b in self._BATCHES:
                for s in self._SEQUENCES:
                    monomials = symbolic.monomials(b, s)
                    yield [m * value for m in monomials for value in products] + rounded


def sparse(poly: Poly, count: int = len(PRODUCTS)) -> list[list[int]]:
    """Terms of a polynomial of ``count`` products, as a family's profile writes them."""
    plain = len(_ORDER) * count  # coefficients of a size; those of ``Constants`` follow
    return [
        [_ORDER[index // count], index % count, coefficient]
        if index < plain
        else [len(_ORDER), index - plain, coefficient]
        for index, coefficient in enumerate(poly)
        if coefficient
    ]
