"""Forward and backward, step by step: activations, gathered parameters and gradients together.

The activations come from a model's profile (``zero_sizer.activations``), cut where parameters
matter: where a module that owns some begins to run, and where a gradient becomes complete. What
ZeRO holds at the same places is the ``overlay``. What holds in all of a phase is in the ledger.

Blocks that are equal save equally, so over a run of blocks activations are a line.
"""

from collections.abc import Iterator, Sequence

from zero_sizer.activations.levels import MicroStep, StepLevels
from zero_sizer.timeline.overlay import Overlay, Zero, overlay_of
from zero_sizer.timeline.passes import Pass
from zero_sizer.timeline.program import Layout
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero.reduction import Held


@dataclass(frozen=True, kw_only=True)
class Instant:
    """The highest point of a pass, in bytes beside everything persistent.

    Attributes:
        place: what is running, for a reader.
        activations: saved and transient, logits and loss included.
        gathered: ZeRO-3's gathered parameters and gather buffers.
        held: gradients, buckets and reduction copies.
    """

    place: str
    activations: int
    gathered: int
    held: Held

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.gathered + self.held.total


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The highest points of forward and backward, and what backward leaves behind."""

    forward: Instant
    backward: Instant


_Row = tuple[int, tuple[int, ...], int, int]
"""Activations that some columns (``overlay.Pass``) have in common, all even or all odd.

The negative of the highest block's, so that the highest row is the least; the columns; the first
block's; what each further block adds.
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """A step's activations, highest first, and what is left when the last gradient is complete."""

    forward: tuple[_Row, ...]
    backward: tuple[_Row, ...]
    remaining: int

    @property
    def highest_forward(self) -> int:
        """Activations at the highest row of forward."""
        return -self.forward[0][0] if self.forward else 0

    @property
    def highest_backward(self) -> int:
        """Activations at the highest row of backward."""
        return -self.backward[0][0] if self.backward else 0


def timeline(rows: Rows, layout: Layout, zero: Zero) -> Timeline:
    """Compose one micro step's activations with what ZeRO holds at every place."""
    overlay = overlay_of(layout, zero)
    forward = _highest(rows.forward, overlay, is_backward=False)
    backward = _highest(rows.backward, overlay, is_backward=True)
    over = after_backward(rows.remaining, overlay)
    return Timeline(forward=forward, backward=max(backward, over, key=lambda i: i.total))


def after_backward(activations: int, overlay: Overlay) -> Instant:
    """The reduction that follows the last gradient, beside what activations are left."""
    return Instant(
        place="reduction after the last gradient",
        activations=activations,
        gathered=overlay.last_gathered,
        held=overlay.epilogue,
    )


def end_of_forward(step: MicroStep, layout: Layout, zero: Zero) -> Instant:
    """The instant at which forward has returned: saved activations, and what ZeRO holds."""
    _, activations = _pass(step, 0, is_backward=False)
    columns = sum(2 * len(part.forward.steps) for part in step.parts)
    at = overlay_of(layout, zero).at(columns - 1, step.parts[-1].count - 1, is_backward=False)
    return Instant(place=at.label, activations=activations, gathered=at.gathered, held=at.held)


def highest_totals(
    rows: Rows, overlay: Overlay, gap: int | None = None, known: tuple[int, int] = (-1, -1)
) -> tuple[int, int]:
    """Bytes of the highest points of forward and backward, wherever they are.

    Args:
        rows: the activations.
        overlay: what ZeRO holds.
        gap: bytes by which more lies beside forward than beside backward; a forward that is lower
            than backward with it is not worked out, and its bytes are too few. None: it always is.
        known: lower bounds, of which the answers are the least.
    """
    backward = _most(rows.backward, overlay.backward, known[1])
    over = rows.remaining + overlay.last_gathered
    if over + overlay.epilogue_ceiling > backward:
        backward = max(backward, over + overlay.epilogue_total)
    if gap is not None and rows.highest_forward + overlay.forward.bound + gap < backward:
        return known[0], backward
    return _most(rows.forward, overlay.forward, known[0]), backward


def activations_alone(rows: Rows) -> tuple[int, int]:
    """Bytes of activations where forward and backward hold most of them."""
    return rows.highest_forward, rows.highest_backward


def _highest(rows: tuple[_Row, ...], overlay: Overlay, *, is_backward: bool) -> Instant:
    """The highest place; the first of equals."""
    found = overlay.backward if is_backward else overlay.forward
    _, column, block, activations = _find(rows, found)
    at = overlay.at(column, block, is_backward=is_backward)
    return Instant(place=at.label, activations=activations, gathered=at.gathered, held=at.held)


def _find(rows: tuple[_Row, ...], found: Pass) -> tuple[int, int, int, int]:
    """Bytes of the highest place, its column and block, and activations there."""
    best, where = -1, (0, 0, 0)  # column, block, activations
    for below, columns, first, slope in rows:
        if found.bound - below < best:
            break  # no later row reaches it
        if found.columns.highest_beside(columns, first, slope, best - 1) < best:
            continue
        for column in columns:
            total, block = found.columns.place_beside(column, first, slope)
            if total > best or (total == best and (column, block) < where[:2]):
                best, where = total, (column, block, first + slope * block)
    return best, *where


def _most(rows: tuple[_Row, ...], found: Pass, best: int) -> int:
    """Bytes of the highest place alone; ``best`` where none is higher."""
    highest_beside = found.columns.highest_beside
    for below, columns, first, slope in rows:
        if found.bound - below <= best:
            break
        best = highest_beside(columns, first, slope, best)
    return best


def rows_of(step: MicroStep) -> Rows:
    """The rows of a step; plans that differ elsewhere have the same."""
    return _rows(Identity(step))


@cached_large(maxsize=2048)
def _rows(identity: Identity) -> Rows:
    step: MicroStep = identity.of
    forward, level = _pass(step, 0, is_backward=False)
    backward, remaining = _pass(step, level, is_backward=True)
    return Rows(forward, backward, remaining)


def _pass(step: MicroStep, level: int, *, is_backward: bool) -> tuple[tuple[_Row, ...], int]:
    """The rows of a pass that begins at ``level``, and the level when it is over."""
    rows: list[_Row] = []
    column = 0
    for part in reversed(step.parts) if is_backward else step.parts:
        section = part.backward if is_backward else part.forward
        slope = section.end
        rise = max(slope * (part.count - 1), 0)
        alike: dict[int, list[int]] = {}  # twice the level, and one more for the end of a step
        levels = list(_levels(section.steps))
        for number, at in enumerate(levels):
            alike.setdefault(2 * at + number % 2, []).append(column + number)
        column += len(levels)
        for key, columns in alike.items():
            first = level + (key >> 1)
            rows.append((-first - rise, tuple(columns), first, slope))
        level += part.count * slope
    rows.sort()
    return tuple(rows), level


def _levels(steps: Sequence[StepLevels]) -> Iterator[int]:
    for found in steps:
        yield found.peak
        yield found.end
