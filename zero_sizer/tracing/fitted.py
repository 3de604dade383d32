"""Traces at several batches and sequences, fitted: every section as polynomials."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce

from zero_sizer.errors import WitnessError
from zero_sizer.tracing import sections, symbolic
from zero_sizer.tracing.recorder import Event, Gone, Made
from zero_sizer.tracing.sections import Slice, TracedSection
from zero_sizer.tracing.step import Trace
from zero_sizer.tracing.symbolic import ZERO, Point, Poly
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass

BLOCK = 512  # what torch's CUDA allocator rounds up to


@dataclass(frozen=True, kw_only=True)
class Range:
    """Where one fit holds.

    Attributes:
        with_batch: b >= 2; else b = 1, where torch copies less.
        samples: the only b, where no polynomial was found; None otherwise.
        sequences: smallest and largest s.
        images: fewest and most of a sample, where it matters.
    """

    with_batch: bool
    sequences: tuple[int, int]
    samples: int | None = None
    images: tuple[int, int | None] | None = None


@dataclass(frozen=True)
class FittedStep:
    """One slice of a section; levels count from where the section begins.

    Attributes:
        runs: modules that begin to run or have run, relative to the block (``sections.Slice``).
        completes: parameter whose gradient is complete at its end, relative to the block.
        peaks: the largest of these is the highest level within.
        end: level at its end.
    """

    runs: tuple[str, ...]
    completes: str
    peaks: tuple[Poly, ...]
    end: Poly


@dataclass(frozen=True)
class FittedSection:
    """One section; equal ones are the same for a timeline.

    Attributes:
        steps: in order.
        flops: floating-point operations.
        gradient: bytes of the gradient that arrives.
    """

    steps: tuple[FittedStep, ...]
    flops: Poly
    gradient: Poly


@dataclass(frozen=True, kw_only=True)
class FittedStack:
    """All sections of one trace setup.

    Attributes:
        rows: (block, is_backward, section), in order.
        late: block -> bytes made in its forward that the last section of the forward frees, as
            autocast's copies of weights where nothing saves them.
    """

    rows: tuple[tuple[str, bool, FittedSection], ...]
    late: Mapping[str, Poly]


def fit(
    traces: Mapping[Point, Trace], held_out: Point, owners: frozenset[str], where: Range
) -> FittedStack:
    """Fits all traces but the one at ``held_out``, which must come out to the byte.

    Raises:
        WitnessError: the traces differ in more than sizes, or sizes are no polynomials.
    """
    first = next(iter(traces.values()))
    sizes, flops = fit_sizes(traces, held_out, where)
    envelope = partial(symbolic.envelope, with_batch=where.with_batch, sequences=where.sequences)
    return put_together(first, [rounded(size) for size in sizes], flops, owners, envelope)


Flops = list[tuple[int, Poly]]
"""(Events before, floating-point operations) of every operator that has a formula."""


def fit_sizes(
    traces: Mapping[Point, Trace], held_out: Point, where: Range
) -> tuple[list[Poly], Flops]:
    """Bytes of every storage, and floating-point operations.

    Raises:
        WitnessError: as ``fit``.
    """
    first = next(iter(traces.values()))
    check_alike(traces)
    sizes = _fit_all({p: t.sizes for p, t in traces.items()}, held_out, where)
    counts = _fit_all({p: tuple(n for _, n in t.flops) for p, t in traces.items()}, held_out, where)
    return sizes, [(index, poly) for (index, _), poly in zip(first.flops, counts, strict=True)]


def check_alike(traces: Mapping[Point, Trace]) -> None:
    """Refuses traces that differ in more than sizes.

    Raises:
        WitnessError: they do not.
    """
    first = next(iter(traces.values()))
    for trace in traces.values():
        if sections.shape_of(trace.events) != sections.shape_of(first.events):
            raise WitnessError(f"traces differ in their operators: {_first_difference(traces)}")


def put_together(
    trace: Trace,
    sizes: Sequence[Poly],
    flops: Sequence[tuple[int, Poly]],
    owners: frozenset[str],
    envelope: Callable[[Sequence[Poly]], Sequence[Poly]],
) -> FittedStack:
    """The sections of a trace.

    Args:
        trace: any of those that were fitted.
        sizes: bytes of every storage, polynomials of one length.
        flops: of the same length.
        owners: names of the modules that own parameters.
        envelope: those of some levels that are the highest somewhere.
    """
    found = sections.split(trace.events, owners)
    left_out = sections.parameter_gradients(trace.events, found)
    ledger = _Levels(trace.events, sizes, left_out, envelope)
    return FittedStack(
        rows=tuple((s.block, s.is_backward, ledger.section(s, flops)) for s in found),
        late=ledger.late(found),
    )


def measure(trace: Trace, owners: frozenset[str]) -> FittedStack:
    """One trace's own byte counts, as constants."""
    sizes = [symbolic.constant(size) for size in trace.sizes]
    flops = [(index, symbolic.constant(count)) for index, count in trace.flops]
    return put_together(trace, sizes, flops, owners, lambda levels: [max(levels)])


def _fit_all(values: Mapping[Point, Sequence[int]], held_out: Point, where: Range) -> list[Poly]:
    fitted = []
    for number, expected in enumerate(values[held_out]):
        at = {point: row[number] for point, row in values.items() if point != held_out}
        poly = symbolic.fit(at, with_batch=where.with_batch)
        if symbolic.at(poly, *held_out) != expected:  # of two terms, others may fit the few points
            poly = symbolic.fit({**at, held_out: expected}, with_batch=where.with_batch)
        fitted.append(poly)
    return fitted


def _first_difference(traces: Mapping[Point, Trace]) -> str:
    (p0, first), *others = traces.items()
    for point, trace in others:
        for left, right in zip(first.events, trace.events, strict=False):
            if left != right:
                return f"{left} at {p0}, {right} at {point}"
    return "one is longer"


class _Levels:
    """Adds up what is live, storage by storage, parameter gradients left out."""

    def __init__(
        self,
        events: Sequence[Event],
        sizes: Sequence[Poly],
        left_out: set[int],
        envelope: Callable[[Sequence[Poly]], Sequence[Poly]],
    ) -> None:
        self._events = events
        self._left_out = left_out
        self._envelope = envelope
        self._sizes = sizes
        self._zero: Poly = (0,) * len(sizes[0]) if sizes else ZERO

    def section(self, section: TracedSection, flops: Sequence[tuple[int, Poly]]) -> FittedSection:
        prefix = section.block + "." if section.block else ""
        level, steps, total = self._zero, [], self._zero
        for part in section.slices:
            peaks, level = self._slice(part, level)
            runs = tuple(_relative(token, prefix) for token in part.runs)
            steps.append(FittedStep(runs, part.completes.removeprefix(prefix), peaks, level))
        first, last = section.slices[0].first, section.slices[-1].last
        for index, count in flops:
            if first <= index - 1 < last:
                total = symbolic.add(total, count)
        gradient = self._sizes[section.gradient] if section.gradient >= 0 else self._zero
        return FittedSection(_merged(steps, self._zero), total, gradient)

    def late(self, sections_: Sequence[TracedSection]) -> dict[str, Poly]:
        forward = [section for section in sections_ if not section.is_backward]
        freed = {e.storage for e in self._of(forward[-1]) if isinstance(e, Gone)}
        return {
            section.block: reduce(
                symbolic.add,
                (
                    self._sizes[event.storage]
                    for event in self._of(section)
                    if isinstance(event, Made) and event.storage in freed
                ),
                self._zero,
            )
            for section in forward
            if section.block
        }

    def _of(self, section: TracedSection) -> Sequence[Event]:
        return self._events[section.slices[0].first : section.slices[-1].last]

    def _slice(self, part: Slice, level: Poly) -> tuple[tuple[Poly, ...], Poly]:
        levels = [level]
        for event in self._events[part.first : part.last]:
            if isinstance(event, Made | Gone) and event.storage not in self._left_out:
                sign = 1 if isinstance(event, Made) else -1
                level = symbolic.add(level, self._sizes[event.storage], sign)
                if sign == 1:
                    levels.append(level)
        return tuple(self._envelope(levels)), level


def rounded(size: Poly) -> Poly:
    """Sizes that neither batch nor sequence change are rounded as torch's allocator does."""
    if not size[0] or any(size[1:]):
        return size
    return symbolic.constant(round_up(size[0], BLOCK))


def _is_between(steps: Sequence[FittedStep]) -> bool:
    """Whether the first and the last of three steps complete gradients of one module."""
    if len(steps) != 3 or not steps[0].completes or not steps[2].completes:
        return False
    return sections.owner_of(steps[0].completes) == sections.owner_of(steps[2].completes)


def _relative(token: str, prefix: str) -> str:
    name = token.lstrip("~/^")
    return token[: len(token) - len(name)] + name.removeprefix(prefix)


def _merged(steps: Sequence[FittedStep], level: Poly) -> tuple[FittedStep, ...]:
    """Without the steps in which nothing happens; what begins or ends there joins the next.

    One stays between gradients of one module that are not made together. The first begins at
    ``level``.
    """
    kept: list[FittedStep] = []
    runs: tuple[str, ...] = ()
    for number, step in enumerate(steps):
        runs += step.runs
        is_empty = not step.completes and step.peaks == (level,) and step.end == level
        if not is_empty or _is_between(steps[number - 1 : number + 2]):
            kept.append(replace(step, runs=runs))
            level, runs = step.end, ()
    if runs or not kept:
        kept.append(FittedStep(runs, "", (level,), level))
    return tuple(kept)
