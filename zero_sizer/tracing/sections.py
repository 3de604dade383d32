"""A traced step, cut into its parts: outside of the blocks, each block, forward and backward."""

from collections.abc import Iterator, Sequence
from dataclasses import field

from zero_sizer.tracing.recorder import Event, Made, Mark
from zero_sizer.util.records import dataclass

OUTSIDE = ""
_SIGNS = {"module": "", "ends": "/", "returns": "^"}


@dataclass(kw_only=True)
class Slice:
    """Consecutive events between two marks of a section.

    Attributes:
        runs: what begins or ends where it begins: ``name`` of a module that owns parameters and
            begins to run, ``~name`` of one that owns none, ``/name`` of one that owns some and has
            run, ``^name`` and ``^~name`` of one whose backward begins.
        completes: the parameter whose gradient is complete when it ends.
        first: index of its first event.
        last: index after its last event.
    """

    runs: tuple[str, ...] = ()
    completes: str = ""
    first: int
    last: int = 0


@dataclass(kw_only=True)
class TracedSection:
    """One block's forward or backward, or what runs before, between or after the blocks.

    Attributes:
        block: the block's name; empty outside of blocks.
        is_backward: of the two passes.
        slices: its events.
        gradient: number of the storage of the gradient that arrives; -1 where none does.
    """

    block: str
    is_backward: bool
    slices: list[Slice] = field(default_factory=list)
    gradient: int = -1


def split(events: Sequence[Event], owners: frozenset[str]) -> list[TracedSection]:
    """The sections of a step, in order.

    Args:
        events: of one trace.
        owners: names of the modules that own parameters.
    """
    sections: list[TracedSection] = []
    for index, block, is_backward, mark in _boundaries(events, owners):
        if sections:
            sections[-1].slices[-1].last = index
        if block is not None:
            sections.append(TracedSection(block=block, is_backward=is_backward))
            sections[-1].slices.append(Slice(first=index))
            if mark.kind == "comes":
                sections[-1].gradient = mark.storage
        elif mark.kind == "gradient":
            sections[-1].slices[-1].completes = mark.name
            sections[-1].slices.append(Slice(first=index))
        else:
            sections[-1].slices.append(Slice(first=index))
        sections[-1].slices[-1].runs = _runs(mark, owners)
    sections[-1].slices[-1].last = len(events)
    for section in sections:
        section.slices = list(_split(section.slices, events))
    return sections


def _runs(mark: Mark, owners: frozenset[str]) -> tuple[str, ...]:
    if mark.kind not in _SIGNS:
        return ()
    owns = "" if mark.name in owners else "~"
    return (_SIGNS[mark.kind] + owns + mark.name,)


def _split(slices: Sequence[Slice], events: Sequence[Event]) -> Iterator[Slice]:
    """Before and from where the gradients that they complete are made: only then are they held.

    Those of one module can be made together and be complete one right after the other.
    """
    held: set[int] = set()
    for number, part in enumerate(slices):
        wanted = set(_together(slices[number:], events)) - held
        made = [
            index
            for index in range(part.first + 1, part.last)
            if isinstance(event := events[index], Made) and event.storage in wanted
        ]
        held |= wanted if made else set()
        if made:
            yield Slice(runs=part.runs, first=part.first, last=made[0])
            yield Slice(completes=part.completes, first=made[0], last=part.last)
        else:
            yield part


def owner_of(parameter: str) -> str:
    """The module that owns a parameter."""
    return parameter.rpartition(".")[0]


def _together(slices: Sequence[Slice], events: Sequence[Event]) -> Iterator[int]:
    """Storages of gradients of one module: that of the first slice, others made by its end."""
    first, made = slices[0], set()
    for event in events[first.first : first.last]:
        made |= {event.storage} if isinstance(event, Made) else set()
    for number, part in enumerate(slices):
        mark = events[part.last] if part.completes and part.last < len(events) else None
        if not isinstance(mark, Mark) or owner_of(part.completes) != owner_of(first.completes):
            return
        if number and mark.storage not in made:
            return
        yield mark.storage


def _boundaries(
    events: Sequence[Event], owners: frozenset[str]
) -> Iterator[tuple[int, str | None, bool, Mark]]:
    """(index, block of the section that begins or None, backward?, mark) where something begins."""
    current, has_left, is_backward = OUTSIDE, False, False
    blocks = {e.name for e in events if isinstance(e, Mark) and e.kind == "enter"}
    yield 0, OUTSIDE, False, Mark("start", "")
    for index, event in enumerate(events):
        if not isinstance(event, Mark) or _is_elsewhere(event, current, blocks):
            continue
        is_backward = is_backward or event.kind == "backward"
        begins = _begins(event, current, has_left=has_left)
        has_left = event.kind == "leave" or (has_left and begins is None)
        if begins is not None:
            current = begins
            yield index, begins, is_backward, event
        elif event.kind in ("gradient", "module", "returns") or (
            event.kind == "ends" and event.name in owners
        ):
            yield index, None, is_backward, event


def _is_elsewhere(mark: Mark, current: str, blocks: set[str]) -> bool:
    """Whether the backward of a module begins outside of the block that it is in.

    What all blocks share is made in one of them, as T5's biases of positions are.
    """
    if mark.kind != "returns" or mark.name.startswith(f"{current}."):
        return False
    return any(mark.name.startswith(f"{block}.") for block in blocks)


def _begins(mark: Mark, current: str, *, has_left: bool) -> str | None:
    """The block whose section ``mark`` begins, ``OUTSIDE``, or None where none does."""
    if mark.kind in ("enter", "comes"):
        return mark.name
    ends = (
        mark.kind == "backward"
        or (mark.kind == "module" and has_left)
        or (mark.kind == "returns" and current and not mark.name.startswith(f"{current}."))
        or (mark.kind == "leaves" and mark.name == current)
    )
    return OUTSIDE if ends else None


def parameter_gradients(events: Sequence[Event], sections: Sequence[TracedSection]) -> set[int]:
    """Storages that become a parameter's gradient in the slice in which they are made.

    Or right after it, together with another of the same module. A gradient made earlier waits for
    another contribution, as those of tied weights do; it is no finished gradient yet and counts
    with the activations.
    """
    found: set[int] = set()
    for section in sections:
        for number, part in enumerate(section.slices):
            made = {e.storage for e in events[part.first : part.last] if isinstance(e, Made)}
            found |= made.intersection(_together(section.slices[number:], events))
    return found


def shape_of(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """Shape that two traces must share for their storages to be compared one by one.

    Not the name of the operator that made a storage, which inside of a decomposition is that of the
    one before.
    """
    return [
        (type(event), event.storage) if not isinstance(event, Mark) else (Mark, *event)
        for event in events
    ]
