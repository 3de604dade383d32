"""A family's profile: one structure traced at several widths (``activations.structure``)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from zero_sizer.errors import UnsupportedError, WitnessError
from zero_sizer.models.feeds import Feed
from zero_sizer.tracing import fitted, planes, windows
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
from zero_sizer.tracing.widths import (
    MOST_CONSTANTS,
    MOST_COPIES,
    ORDER,
    PRODUCTS,
    UNIT,
    Constants,
    Envelope,
    Products,
    Solver,
    sparse,
)
from zero_sizer.util.gc_paused import keep_old_objects
from zero_sizer.util.records import dataclass


@dataclass(frozen=True)
class _Sized:
    """One range of one setup at one set of widths."""

    where: Range
    trace: Trace
    sizes: list[Poly]
    flops: fitted.Flops
    owners: frozenset[str]


class Member(NamedTuple):
    """A model of a structure.

    Attributes:
        fields: of its config.json.
        widths: and lengths of its inputs, by name.
        feed: what a sample brings; None: token ids and labels.
        more: number of images -> the feed, where what runs depends on it; number of images and of
            windows of each, where it depends on both.
    """

    fields: Mapping[str, Any]
    widths: Mapping[str, int]
    feed: Feed | None = None
    more: Mapping[Any, Feed] = {}


def trace_family(  # noqa: PLR0913 (a structure, and what it is made of)
    members: Sequence[Member],
    *,
    name: str,
    realistic: Sequence[Mapping[str, int]],
    window: int | None,
    has_biases: bool,
    kinds: Sequence[int] = (),
    kinds_of: Mapping[str, Sequence[int]] = {},
    products: Products = PRODUCTS,
    setups: Sequence[Setup] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Traces one structure at the widths of its ``members``.

    Args:
        members: the last is what the others' fit must give, too.
        name: what to call it.
        realistic: widths at which peaks are told apart.
        window: tokens of the members' window of attention.
        has_biases: linear layers have some.
        kinds: which kind each block is, where blocks differ in any order: all are traced.
        kinds_of: likewise, of one of several stacks by its name, which are not traced whole.
        products: of widths that a size may be; where what runs depends on the number of images,
            without images.
        setups: the only ones to trace; None for all.
        report: told about each setup.

    Raises:
        UnsupportedError: transformers trains none of them.
        WitnessError: the members differ in more than sizes.
    """
    tracers = [Tracer(m.fields, whole=bool(kinds), feed=m.feed) for m in members]
    keep_old_objects()  # what is imported by now stays; each trace collects what it made
    stacks = [
        replace(s, kinds=tuple(kinds_of.get(s.prefix, kinds)) or s.kinds) for s in tracers[0].stacks
    ]
    constants = Constants()
    has_windows = members[0].feed is not None and windows.WINDOW in members[0].widths
    of_windows = windows.named(products) if has_windows else ()
    solver = Solver(
        [m.widths for m in members],
        products,
        is_signed=bool(members[0].more),
        most=windows.MOST_COPIES if of_windows else MOST_COPIES,
    )
    if of_windows:
        products = tuple(product or () for product in of_windows)
    if members[0].more:
        products = (*products, *((planes.IMAGES, *product) for product in products))
    encoder = Encoder(stacks, partial(sparse, count=len(products)))
    whole = Assembly(solver, constants, Envelope(realistic, constants, products))
    fit = (
        _looping(members, solver, whole.envelope, of_windows)
        if members[0].more
        else partial(whole.of, of_first=bool(kinds))
    )
    seen: dict[Any, list[FittedRange]] = {}
    for setup in setups or all_setups(is_changed=False, has_biases=has_biases):
        try:
            key = (setup.variant, setup.checkpointing, tracers[0].probe(setup))
        except UnsupportedError:
            continue
        if key not in seen:
            seen[key] = fit(tracers, setup)
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
        **({"fewest": next(tracers[0].ranges())[0]} if members[0].feed is not None else {}),
    }


_Traces = dict[tuple[int, int], Trace]


def _remembered(trace: Callable[[int, int], Trace], known: _Traces) -> Callable[[int, int], Trace]:
    """The function that traces, which takes what was traced before from ``known``."""

    def at(b: int, s: int) -> Trace:
        if (b, s) not in known:
            known[b, s] = trace(b, s)
        return known[b, s]

    return at


def _looping(
    members: Sequence[Member],
    solver: Solver,
    envelope: Envelope,
    of_windows: Sequence[tuple[str, ...] | None],
) -> Callable[[Sequence[Tracer], Setup], list[FittedRange]]:
    """Fits of models whose code walks through images, and through windows of them."""
    count = len(of_windows or solver.products)
    place = planes.Place(
        products=count,
        solve=solver.terms,
        width=len(ORDER) * 2 * count + MOST_CONSTANTS,
        envelope=envelope.of,
        covers=envelope.covers,
        windows=of_windows,
    )
    fewest = max(feed.fewest for member in members for feed in member.more.values())

    def fit(tracers: Sequence[Tracer], setup: Setup) -> list[FittedRange]:
        subjects = [
            replace(tracer.subject, more=member.more)
            for tracer, member in zip(tracers, members, strict=True)
        ]
        return planes.ranges(subjects, setup, place, next(tracers[0].ranges()), fewest)

    return fit


def _ranges(tracers: Sequence[Tracer], setup: Setup, known: Sequence[_Traces]) -> list[Points]:
    """Where the fits hold: one sample apart wherever its trace is another at any widths."""
    found: dict[Range, Points] = {}
    for tracer, traces in zip(tracers, known, strict=False):
        with traced(tracer.subject, setup) as (trace, owners):
            for window in tracer.ranges():
                remembered = _remembered(trace, traces)
                for points in points_that_differ(remembered, owners, window, tracer.most):
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


class Assembly:
    """Puts sizes at several widths together."""

    def __init__(self, solver: Solver, constants: Constants, envelope: Envelope) -> None:
        self._solver = solver
        self._constants = constants
        self.envelope = envelope

    def of(self, tracers: Sequence[Tracer], setup: Setup, *, of_first: bool) -> list[FittedRange]:
        """Every range of one setup, whatever the widths; as the first model has them if so said."""
        known: list[_Traces] = [{} for _ in tracers]
        ranges = _ranges(tracers[:1] if of_first else tracers, setup, known)
        rows = [list(_sized(*of, setup, ranges)) for of in zip(tracers, known, strict=True)]
        return [self.fit(sized) for sized in zip(*rows, strict=True)]

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
            first.trace, sizes, flops, first.owners, self.envelope.of
        )
        return FittedRange(where=first.where, stack=stack)

    def wide(self, polys: tuple[Poly, ...]) -> Poly:
        """One size as coefficients of monomial x product."""
        count = len(self._solver.products)
        plain = len(ORDER) * count
        found = [0] * (plain + MOST_CONSTANTS)
        first = tuple(poly[0] for poly in polys)
        if any(first) and not any(any(poly[1:]) for poly in polys):
            found[plain + self._constants.index(self._solver.terms(first))] = 1
            return tuple(found)
        for monomial, coefficients in enumerate(zip(*polys, strict=True)):
            if any(coefficients):
                for product, coefficient in self._solver.terms(coefficients):
                    found[monomial * count + product] = coefficient
        return tuple(found)
