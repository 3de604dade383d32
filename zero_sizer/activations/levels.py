"""The shape in which activations reach the timeline: from a profile or from a closed form.

What the numbers mean: ``zero_sizer.activations``.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass


class StepLevels(Protocol):
    """A piece of a section."""

    @property
    def runs(self) -> str:
        """Modules that begin to run or have run (``zero_sizer.activations``)."""

    @property
    def completes(self) -> str:
        """Parameter whose gradient is complete at its end."""

    @property
    def peak(self) -> int:
        """Highest level within, bytes."""

    @property
    def end(self) -> int:
        """Level at its end, bytes."""


class SectionLevels(Protocol):
    """One part's forward or backward."""

    @property
    def end(self) -> int:
        """Level at its end, bytes."""

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Modules that each piece runs, and parameters that it completes."""

    @property
    def steps(self) -> Sequence[StepLevels]:
        """Its pieces, in order."""


class PartLevels(Protocol):
    """Equal blocks in a row, or what lies outside of blocks."""

    @property
    def blocks(self) -> str:
        """Qualified name of the list of blocks; empty outside of blocks."""

    @property
    def first(self) -> int:
        """Index of the first block."""

    @property
    def count(self) -> int:
        """How many blocks."""

    @property
    def forward(self) -> SectionLevels:
        """Forward of each."""

    @property
    def backward(self) -> SectionLevels:
        """Backward of each."""


class MicroStep(Protocol):
    """One micro step of one rank."""

    @property
    def parts(self) -> Sequence[PartLevels]:
        """In forward order."""

    @property
    def saved(self) -> int:
        """Bytes held between forward and backward."""


class Level(NamedTuple):
    """A piece of a section that was put together here."""

    runs: str
    completes: str
    peak: int
    end: int


class ComposedSection(NamedTuple):
    """A forward or backward that was put together here."""

    steps: tuple[Level, ...]

    @property
    def end(self) -> int:
        """Level at its end, bytes."""
        return self.steps[-1].end

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Modules that each piece runs, and parameters that it completes."""
        return tuple([(step.runs, step.completes) for step in self.steps])


@dataclass(frozen=True, slots=True)
class ComposedPart:
    """Equal blocks in a row, or what lies outside of blocks."""

    blocks: str
    first: int
    count: int
    forward: SectionLevels
    backward: SectionLevels

    @classmethod
    def like(
        cls,
        part: PartLevels,
        *,
        blocks: range | None = None,
        forward: SectionLevels | None = None,
        backward: SectionLevels | None = None,
    ) -> "ComposedPart":
        """A part with other sections, or of others of its list's blocks."""
        first, count = (part.first, part.count) if blocks is None else (blocks.start, len(blocks))
        forward = part.forward if forward is None else forward
        backward = part.backward if backward is None else backward
        return cls(part.blocks, first, count, forward, backward)


class Activations(NamedTuple):
    """One micro step."""

    parts: tuple[PartLevels, ...]

    @property
    def saved(self) -> int:
        """Bytes held between forward and backward."""
        return sum(part.count * part.forward.end for part in self.parts)


def remaining(step: MicroStep) -> int:
    """Bytes left when backward is over."""
    return step.saved + sum(part.count * part.backward.end for part in step.parts)


def depths_of(spec: ModelSpec, stacks: Iterable[str]) -> dict[str, int]:
    """How many blocks the model has in each list of blocks; one that was cut has fewer."""
    return {stack: _depth(Identity(spec), stack) for stack in stacks}


@lru_cache(maxsize=64)
def _depth(spec: Identity, stack: str) -> int:
    prefix = f"{stack}."
    names = (tensor.name for tensor in spec.of.parameters)
    return len({n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)})
