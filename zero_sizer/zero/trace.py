"""Order of modules and limits, which decide when stage-3 parameters are gathered."""

from collections.abc import Iterable
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from zero_sizer.util.records import dataclass
from zero_sizer.zero.reuse import Visit, saving
from zero_sizer.zero.secondary import NONE, Secondary
from zero_sizer.zero.swapping import Swapped


class Known(Enum):
    """Knowledge that DeepSpeed has of the model when a forward begins.

    Attributes:
        NOTHING: the first of all. Nothing is fetched ahead or kept for reuse, and a module's
            parameters go when it has run, those that shall stay among them
            (partitioned_param_coordinator.py:468,508-509,585,634).
        ORDER: the order of modules. No optimizer step has gathered what shall stay, so that comes
            with the first that is gathered with it.
        EVERYTHING: what stays is there.
    """

    NOTHING = "nothing"
    ORDER = "order"
    EVERYTHING = "everything"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The ``zero_optimization.stage3_*`` keys that steer gathering, in elements."""

    prefetch_bucket_size: int
    max_live_parameters: int
    max_reuse_distance: int


@dataclass(frozen=True)
class Trace:
    """Modules in the order they run.

    Attributes:
        numels: elements of each parameter.
        itemsizes: bytes per element of each.
        gather_itemsizes: the same while it is gathered; another where it is cast for that.
        persistent: whether each stays gathered.
        visits: of modules, forward pass then backward pass.
        is_parked: partitions lie on the host or NVMe.
        kept: what gathered them stays referred to until their last use, released or not.
        recomputed: and where recomputation gathers them, until their module's backward is over.
        lent: where recomputation gathers them they stay until the module whose backward asked for
            it is over (``update_recompute_parameters``).
        secondary: what hpZ keeps of released parameters.
        one_by_one: each parameter is brought by itself: one rank, offloaded (``NoGatherHandle``).
        is_first: before the first optimizer step, which gathers those that stay gathered: until
            then each comes with the first that is gathered with it.
        counts_persistent: those that stay gathered are counted, from when they come; else they are
            elsewhere.
        swapped: partitions that lie on NVMe; None: nothing waits for that.
    """

    numels: tuple[int, ...]
    itemsizes: tuple[int, ...]
    gather_itemsizes: tuple[int, ...]
    persistent: tuple[bool, ...]
    visits: tuple[Visit, ...]
    one_by_one: bool
    is_parked: bool
    kept: frozenset[int] = frozenset()
    recomputed: frozenset[int] = frozenset()
    lent: frozenset[int] = frozenset()
    secondary: Secondary = NONE
    is_first: bool = False
    counts_persistent: bool = False
    swapped: Swapped | None = None

    @property
    def modules(self) -> list[tuple[int, ...]]:
        """Parameters of each module that begins to run: what DeepSpeed's own trace holds."""
        return [visit.parameters for visit in self.visits if visit.begins]

    @cached_property
    def elsewhere(self) -> tuple[bool, ...]:
        """Parameters that are counted elsewhere once they have come, because they stay gathered."""
        return (False,) * len(self.persistent) if self.counts_persistent else self.persistent

    @cached_property
    def casts(self) -> bool:
        """True if any travels in another dtype than its own."""
        return self.gather_itemsizes != self.itemsizes

    def is_cast(self, i: int) -> bool:
        """True if a parameter travels in another dtype than its own."""
        return self.gather_itemsizes[i] != self.itemsizes[i]

    def buffers(self, parameters: Iterable[int]) -> list[list[int]]:
        """In the order they are filled: bfloat16, float16, float32, uint8 (sort_dtypes)."""
        members, gather_itemsizes = sorted(parameters), self.gather_itemsizes
        sizes = {gather_itemsizes[i] for i in members}
        if len(sizes) == 1:
            return [members]
        by_name = sorted(sizes, key=lambda size: (size == 1, size))
        return [[i for i in members if gather_itemsizes[i] == size] for size in by_name]


class Gathering(NamedTuple):
    """All of a ``Trace`` but its visits, and its limits.

    Attributes:
        limits: of gathering.
        parts: elements of each parameter, bytes of one, bytes of one while it is gathered.
        persistent: see ``Trace``.
        places: whether each is brought by itself, and whether partitions are parked.
        kept: see ``Trace``; ``recomputed`` and ``lent``.
        secondary: see ``Trace``.
        views: what backward refers to by another tensor from the last visit of forward on.
        is_first: see ``Trace``.
        swapped: see ``Trace``.
    """

    limits: Limits
    parts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    persistent: tuple[bool, ...]
    places: tuple[bool, bool]
    kept: tuple[frozenset[int], frozenset[int], frozenset[int]]
    secondary: Secondary
    views: frozenset[int]
    is_first: bool = False
    swapped: Swapped | None = None

    def trace(self, visits: tuple[Visit, ...], forward: int) -> Trace:
        """The trace of these visits, of which the first ``forward`` are of forward."""
        if self.views:
            visits = (*saving(visits[:forward], visits[forward:], self.views), *visits[forward:])
        how = (*self.parts, self.persistent, visits, *self.places, *self.kept, self.secondary)
        return Trace(*how, self.is_first, swapped=self.swapped)
