"""Where a changed model's parts begin and end: what is around the base, and what goes last."""

from dataclasses import replace

from zero_sizer.activations.levels import ComposedPart, ComposedSection, Level


def within(part: ComposedPart, around: list[str]) -> ComposedPart:
    """The first part, begun by what is around the base."""
    first, *others = part.forward.steps
    runs = " ".join((*around, *first.runs.split()))
    opened = Level(runs, first.completes, first.peak, first.end)
    steps = (opened, *(Level(s.runs, s.completes, s.peak, s.end) for s in others))
    return replace(part, forward=ComposedSection(steps))


def over(part: ComposedPart, ended: int) -> ComposedPart:
    """The first part, whose backward is the last, with bytes that go when it is over."""
    *others, last = part.backward.steps
    last = Level(last.runs, last.completes, last.peak, last.end - ended)
    steps = [Level(s.runs, s.completes, s.peak, s.end) for s in others]
    return replace(part, backward=ComposedSection((*steps, last)))


def ending(part: ComposedPart, uncached: int, held: int) -> ComposedPart:
    """The last part.

    The model's own forward is over with its first step, and lets go of what it ``held``. Where
    autocast ends the base lets go of casts that were not kept here.
    """
    first, *others = part.forward.steps
    steps = [Level(first.runs, first.completes, first.peak, first.end - held)]
    steps += [Level(s.runs, s.completes, s.peak - held, s.end - held) for s in others]
    steps[-1] = steps[-1]._replace(end=steps[-1].end + uncached)
    return replace(part, forward=ComposedSection(tuple(steps)))


def holding(
    forward: ComposedSection, backward: ComposedSection, size: int
) -> tuple[ComposedSection, ComposedSection]:
    """The block with bytes that its forward leaves and its backward's end lets go of."""
    if not size:
        return forward, backward
    *others, last = forward.steps
    left = last._replace(peak=max(last.peak, last.end + size), end=last.end + size)
    *before, end = backward.steps
    return ComposedSection((*others, left)), ComposedSection(
        (*before, end._replace(end=end.end - size))
    )
