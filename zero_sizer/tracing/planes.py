"""Sizes of models whose code walks through samples or images one by one.

How many operators run depends on how many there are, so no storage of one trace is that of another.
What is held at the end of each step is, though: so much for itself, so much for each sample and so
much for each image. It is traced at a few numbers of both and put together here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from zero_sizer.errors import WitnessError
from zero_sizer.tracing import fitted, symbolic, windows
from zero_sizer.tracing.fitted import FittedSection, FittedStack, FittedStep, Flops, Range
from zero_sizer.tracing.setups import FittedRange, Setup, Steps, Subject, traced
from zero_sizer.tracing.step import Trace
from zero_sizer.tracing.symbolic import Poly

IMAGES = "images"
_STEP = 64
_MOST_PEAKS = 16
_OF_TOKENS = (0, 1, 4)  # symbolic's monomials without b, and each times b
_BY_SAMPLES = (2, 3, 5)
_EVERY = (*_OF_TOKENS, *_BY_SAMPLES)


class At(NamedTuple):
    """Samples, and images of each."""

    samples: int
    images: int


class Span(NamedTuple):
    """Numbers of samples and images for which one fit holds, and at which it is traced.

    Attributes:
        batch: fewest and most samples.
        images: fewest and most of each sample.
        points: that it goes through.
        held_out: that it must give, too.
    """

    batch: tuple[int, int | None]
    images: tuple[int, int | None]
    points: tuple[At, ...]
    held_out: tuple[At, ...]


SPANS = (
    Span((1, 1), (1, 1), (At(1, 1),), ()),
    Span((1, 1), (2, None), (At(1, 2), At(1, 3)), (At(1, 4),)),
    Span((2, None), (1, None), (At(2, 1), At(3, 1), At(2, 2)), (At(3, 2), At(5, 1))),
)

SPANS_OF_WINDOWS = (
    SPANS[0],
    Span((1, 1), (2, None), (At(1, 2), At(1, 3)), ()),
    Span((2, None), (1, None), (At(2, 1), At(3, 1), At(2, 2)), ()),
)
"""A walk through windows takes long to trace; peaks are matched by their order in time."""


class Place(NamedTuple):
    """How sizes are written: coefficients of monomials times products, then others.

    At one number of samples and images a size is shorter: of monomials of s alone, and of products
    without images.

    Attributes:
        products: without images; with them they follow in the order.
        solve: coefficients of one size at several widths -> (product, coefficient) of each.
        width: of a size.
        envelope: those of some levels that are the highest somewhere.
        covers: whether none of the second levels is higher than all of the first.
        windows: products of ``windows.named``, where images are traced by their windows; these are
            then ``products`` many, and those that ``solve`` tells apart fewer.
    """

    products: int
    solve: Callable[[tuple[int, ...]], tuple[tuple[int, int], ...]]
    width: int
    envelope: Callable[[Sequence[Poly]], Sequence[Poly]]
    covers: Callable[[Sequence[Poly], Sequence[Poly]], bool]
    windows: Sequence[tuple[str, ...] | None] = ()

    @property
    def of_one(self) -> int:
        """Products of a size that was traced at one number of windows."""
        return self.products // windows.POWERS if self.windows else self.products

    def highest(self, levels: Sequence[Poly]) -> Sequence[Poly]:
        """Sizes, as they were traced, that may be the highest of some."""
        if self.windows:
            return windows.extremes(levels, self.windows[: self.of_one])
        return symbolic.undominated(levels)[:_MOST_PEAKS]

    def place_of(self, monomial: int, product: int) -> int:
        """Where a coefficient stands."""
        return monomial * 2 * self.products + product

    def terms(self, short: Poly) -> Iterator[tuple[int, int, int]]:
        """(which monomial of s, which product, coefficient) of a short size."""
        for index, coefficient in enumerate(short):
            if coefficient:
                yield (*divmod(index, self.products), coefficient)

    def expanded(self, short: Poly) -> Poly:
        """A short size as any other."""
        found = [0] * self.width
        for monomial, number, coefficient in self.terms(short):
            found[self.place_of(_OF_TOKENS[monomial], number)] = coefficient
        return tuple(found)


def ranges(
    subjects: Sequence[Subject],
    setup: Setup,
    place: Place,
    sequences: tuple[int, int],
    fewest: int,
) -> list[FittedRange]:
    """One fit for each of ``SPANS``, or ``SPANS_OF_WINDOWS``.

    Args:
        subjects: a model at each of several widths.
        setup: how they run.
        place: how sizes are written.
        sequences: smallest and largest, where the fits hold.
        fewest: tokens of a sequence at all numbers of images.
    """
    spans = SPANS_OF_WINDOWS if place.windows else SPANS
    wanted = sorted({at for span in spans for at in (*span.points, *span.held_out)})
    counts = windows.COUNTS if place.windows else (0,)
    rows: dict[tuple[At, int], list[_Sized]] = {key: [] for key in product(wanted, counts)}
    for subject in subjects:
        with traced(subject, setup) as steps:
            for at, count in rows:
                images = (at.images, count) if count else at.images
                tokens = _tokens(subject.more[images].taken if count else fewest)
                rows[at, count].append(_sized(steps, at.samples, images, tokens))
    stacks = {}
    for at in wanted:
        found = {count: _stack(rows[at, count], place) for count in counts}
        stacks[at] = windows.together(found, place.windows) if place.windows else found[0]
    return [
        FittedRange(
            where=Range(with_batch=span.batch[1] is None, sequences=sequences, images=span.images),
            stack=_together(span, stacks, place),
        )
        for span in spans
    ]


def _tokens(fewest: int) -> tuple[int, int]:
    """Sequences that are traced."""
    start = -(-fewest // _STEP) * _STEP
    return start + _STEP, start + 5 * _STEP


_Sized = tuple[Trace, list[Poly], Flops, frozenset[str]]


def _stack(rows: Sequence[_Sized], place: Place) -> FittedStack:
    """The model's step at one number of samples and images, for any widths and tokens."""
    fitted.check_alike({(number, 0): row[0] for number, row in enumerate(rows)})
    sizes = [_wide(polys, place) for polys in zip(*(row[1] for row in rows), strict=True)]
    flops = [
        (of[0][0], _wide(tuple(poly for _, poly in of), place))
        for of in zip(*(row[2] for row in rows), strict=True)
    ]
    return fitted.put_together(rows[0][0], sizes, flops, rows[0][3], place.highest)


def _sized(steps: Steps, samples: int, images: Any, tokens: Sequence[int]) -> _Sized:
    trace, owners = steps
    points = [(samples, s) for s in tokens]
    traces = {(b, s): trace(b, s, images) for b, s in points}
    fitted.check_alike(traces)
    first = traces[points[0]]
    sizes = _fit([t.sizes for t in traces.values()], points)
    counts = _fit([[n for _, n in t.flops] for t in traces.values()], points)
    flops = [(index, poly) for (index, _), poly in zip(first.flops, counts, strict=True)]
    return first, sizes, flops, owners


def _fit(rows: Sequence[Sequence[int]], points: Sequence[tuple[int, int]]) -> list[Poly]:
    return [
        symbolic.fit(dict(zip(points, values, strict=True)), with_batch=False)
        for values in zip(*rows, strict=True)
    ]


def _wide(polys: tuple[Poly, ...], place: Place) -> Poly:
    """A short size from those at several widths."""
    found = [0] * (len(_OF_TOKENS) * place.of_one)
    for number, monomial in enumerate(_OF_TOKENS):
        coefficients = tuple(poly[monomial] for poly in polys)
        if any(coefficients):
            for product_, coefficient in place.solve(coefficients):
                found[number * place.of_one + product_] = coefficient
    return tuple(found)


def _together(span: Span, stacks: Mapping[At, FittedStack], place: Place) -> FittedStack:
    of = [stacks[at] for at in (*span.points, *span.held_out)]
    rows = []
    for sections in zip(*(stack.rows for stack in of), strict=True):
        if len({(block, is_backward) for block, is_backward, _ in sections}) > 1:
            raise WitnessError("sections that depend on the number of samples")
        block, is_backward, _ = sections[0]
        rows.append((block, is_backward, _section(span, [s for _, _, s in sections], place)))
    late = {block: _plane(span, [stack.late[block] for stack in of], place) for block in of[0].late}
    return FittedStack(rows=tuple(rows), late=late)


def _section(span: Span, found: Sequence[FittedSection], place: Place) -> FittedSection:
    if len({tuple((s.runs, s.completes) for s in section.steps) for section in found}) > 1:
        raise WitnessError("steps that depend on the number of samples")
    steps = []
    for same in zip(*(section.steps for section in found), strict=True):
        peaks = _peaks(span, [step.peaks for step in same], place)
        end = _plane(span, [step.end for step in same], place)
        steps.append(FittedStep(same[0].runs, same[0].completes, peaks, end))
    return FittedSection(
        tuple(steps),
        _plane(span, [section.flops for section in found], place),
        _plane(span, [section.gradient for section in found], place),
    )


def _peaks(span: Span, found: Sequence[Sequence[Poly]], place: Place) -> tuple[Poly, ...]:
    """Levels that lie on planes through one of each, the highest."""
    if place.windows:
        rows = windows.alike([_highest(levels, place) for levels in found])
        return tuple(place.envelope([_plane(span, row, place) for row in rows]))
    count = len(span.points)
    kept: dict[Poly, None] = {}
    for row in product(*found[:count]):
        plane = _through(span, row, place)
        if plane is not None and _holds(plane, span, found[count:], place):
            kept[plane] = None
    for at, levels in zip(span.held_out, found[count:], strict=True):
        seen = [place.expanded(_value(plane, at, place)) for plane in kept]
        if not seen or not place.covers(seen, list(map(place.expanded, levels))):
            raise WitnessError("peaks that lie on no plane")
    return tuple(place.envelope(list(kept)))


def _highest(levels: Sequence[Poly], place: Place) -> list[Poly]:
    """Those of some levels that are the highest somewhere, in their order in time."""
    kept = set(place.envelope([place.expanded(level) for level in levels]))
    return [level for level in levels if place.expanded(level) in kept]


def _holds(plane: Poly, span: Span, levels: Sequence[Sequence[Poly]], place: Place) -> bool:
    return all(
        _value(plane, at, place) in row for at, row in zip(span.held_out, levels, strict=True)
    )


def _plane(span: Span, found: Sequence[Poly], place: Place) -> Poly:
    count = len(span.points)
    plane = _through(span, found[:count], place)
    if plane is None or not _holds(plane, span, [[level] for level in found[count:]], place):
        raise WitnessError("levels that lie on no plane")
    return plane


def _through(span: Span, row: Sequence[Poly], place: Place) -> Poly | None:
    """The size of so much for itself, for each sample and for each image."""
    if len(row) == 1:
        return place.expanded(row[0])
    found = [0] * place.width
    for index, values in enumerate(zip(*row, strict=True)):
        if not any(values):
            continue
        terms = _line(values) if len(row) == 2 else _terms(values)
        if terms is None:
            return None
        own, each, image = terms
        monomial, number = divmod(index, place.products)
        more = _BY_SAMPLES[monomial]
        found[place.place_of(_OF_TOKENS[monomial], number)] += own
        found[place.place_of(more, number)] += each
        found[place.place_of(more, number + place.products)] += image
    return tuple(found)


def _line(values: Sequence[int]) -> tuple[int, int, int]:
    two, three = values
    return two - 2 * (three - two), 0, three - two


def _terms(values: Sequence[int]) -> tuple[int, int, int] | None:
    two, three, images = values
    image, rest = divmod(images - two, 2)
    each = three - two - image
    return None if rest else (two - 2 * (each + image), each, image)


def _value(plane: Poly, at: At, place: Place) -> Poly:
    """A size at so many samples and images, as one that was traced there."""
    found = [0] * (len(_OF_TOKENS) * place.products)
    for index, value in enumerate(plane[: len(_EVERY) * 2 * place.products]):
        if not value:
            continue
        monomial, number = divmod(index, 2 * place.products)
        factor = at.samples if monomial in _BY_SAMPLES else 1
        of = _BY_SAMPLES if monomial in _BY_SAMPLES else _OF_TOKENS
        if number >= place.products:
            number, factor = number - place.products, factor * at.images
        found[of.index(monomial) * place.products + number] += factor * value
    return tuple(found)
