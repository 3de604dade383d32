"""Memory beside that of forward and backward, of many candidates: the ledger, added up."""

from functools import lru_cache, partial
from itertools import takewhile
from typing import Any, NamedTuple, cast

from zero_sizer.advise.view import ACCUMULATES, HOW, NUMBERS, PlanFamily, Values, View
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import entries
from zero_sizer.ledger.entries import forward_backward as passes
from zero_sizer.ledger.entries import hpz
from zero_sizer.ledger.entry import Entry, footprint
from zero_sizer.ledger.moments import Moment
from zero_sizer.util.records import dataclass

MOMENTS = tuple(Moment)
PLACE = {moment: index for index, moment in enumerate(MOMENTS)}
_BESIDE = hpz.IN_PASSES  # what they hold is told from the timeline, too
_LASTING = tuple(e for e in entries.ENTRIES if e not in passes.ENTRIES and e not in _BESIDE)
_PASSING = frozenset(
    (
        "micro_batch",
        "grad_accum",
        ACCUMULATES,
        "checkpointing",
        HOW,
        "reduce_bucket_size",
        "prefetch_bucket_size",
        "max_live_parameters",
        "max_reuse_distance",
        "persistence_threshold",
    )
)
"""Numbers about forward and backward, which little of what lasts reads."""
OF_BATCH = frozenset({"micro_batch"})
_OF_ANY = frozenset((*NUMBERS, ACCUMULATES))


Footprint = tuple[Device, int, tuple[int, ...]]
"""Device of an entry, its bytes (of all ranks of a node off the GPU), and its moments' places."""


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes that one candidate needs of a device at its highest instant; per rank, or per node.

    Attributes:
        num_bytes: live then.
        moment: the instant.
        room: bytes that must be there beside it (``passes.requests.room_of``); of the GPU alone.
        error: the most by which a closed form may be too low or too high; of the GPU alone.
        kept: bytes that may be there beside all that is counted (``kept_pinned``); of the host.
    """

    num_bytes: int
    moment: Moment
    room: int = 0
    error: int = 0
    kept: int = 0


class Sums(NamedTuple):
    """Memory that does not change where some numbers vary.

    Attributes:
        rows: per device, bytes at each moment.
        uses: per device, the highest of them.
        others: which of ``_LASTING`` those numbers do change, those together that read the same.
        by_rank: which of them ranks differ in; they are not added.
    """

    rows: dict[Device, list[int]]
    uses: dict[Device, Use]
    others: list[tuple[int, ...]]
    by_rank: list[int]


class _Several(NamedTuple):
    """Some of ``_LASTING``, as ``Sums`` takes them.

    Attributes:
        added: device, bytes and places of those that are added.
        others: what others read, and which they are.
        by_rank: see ``Sums``.
    """

    added: list[Footprint]
    others: list[tuple[tuple[str, ...], int]]
    by_rank: list[int]


class Lasting:
    """Everything but forward and backward, as formulas of a family.

    Args:
        family: the plans.
        ranks_per_node: GPUs of a node.
    """

    def __init__(self, family: PlanFamily, ranks_per_node: int) -> None:
        self._family = family
        self._reads: dict[tuple[int, int], tuple[dict[str, None], bool, bool]] = {}
        self._allocate = [_Allocate(entry, ranks_per_node) for entry in _LASTING]

    def formula(self, index: int, values: Values) -> Footprint | None:
        """One of the entries that ``Sums.others`` names."""
        found = self._family.formula(index, values, self._allocate[index])
        return cast(Footprint | None, found)

    def highest(self, values: Values, ranks: tuple[int, ...], view: View) -> Sums:
        """All of it that the batch does not change, at every moment of the highest of ``ranks``."""
        known = self._lasting(values, view)
        if not known.by_rank:
            return known
        each = [self._of_rank(known, values.on_rank(rank)) for rank in ranks]
        rows = {
            device: list(map(max, zip(*(found[device] for found in each), strict=True)))
            for device in Device
        }
        uses = {device: highest_of(row) for device, row in rows.items()}
        return Sums(rows, uses, known.others, [])

    def _of_rank(self, known: Sums, values: Values) -> dict[Device, list[int]]:
        """``known`` with what one rank adds; not kept, because the highest of all is."""
        rows = {device: list(row) for device, row in known.rows.items()}
        for index in known.by_rank:
            found = self._allocate[index](self._family.view(values))
            if found is not None:
                add(rows[found[0]], *found[1:])
        return rows

    def _lasting(self, values: Values, view: View) -> Sums:
        owned = self._family.formula("owned", values, partial(self._owned, values), view.reads)
        return self._sums(owned, values, view, OF_BATCH)

    def _owned(self, values: Values, view: View) -> Sums:
        """What neither the batch nor buffers change: most of it, for many candidates."""
        return self._sums(self.fixed(values, view.reads), values, view, _PASSING)

    def fixed(self, values: Values, reads: dict[str, None] | None = None) -> Sums:
        """Sum of what none of the numbers changes; ``reads`` takes note of what it read."""
        found = self._family.formula("fixed", values, partial(self._fixed, values), reads)
        return cast(Sums, found)

    def _fixed(self, values: Values, view: View) -> Sums:
        """The strategy's own, with all it does not have."""
        nothing = {device: [0] * len(MOMENTS) for device in Device}
        every = Sums(nothing, {}, [(index,) for index in range(len(_LASTING))], [])
        return self._sums(every, values, view, _OF_ANY)

    def _sums(self, known: Sums, values: Values, view: View, numbers: frozenset[str]) -> Sums:
        """``known`` and those of its others that do not read ``numbers``.

        Before its first number a formula reads the strategy alone, so that decides whether it
        reads any.
        """
        rows = {device: list(row) for device, row in known.rows.items()}
        by_rank = list(known.by_rank)
        others: dict[tuple[str, ...], list[int]] = {}
        for alike in known.others:
            find = partial(self._several, alike, values, numbers)
            key = alike, id(numbers)
            several = self._family.formula(key, values, find, view.reads)
            for found in several.added:
                add(rows[found[0]], *found[1:])
            by_rank += several.by_rank
            for reads, index in several.others:
                others.setdefault(reads, []).append(index)
        uses = {device: highest_of(row) for device, row in rows.items()}
        return Sums(rows, uses, [tuple(alike) for alike in others.values()], by_rank)

    def _several(
        self, alike: tuple[int, ...], values: Values, numbers: frozenset[str], view: View
    ) -> "_Several":
        """Entries that read the same, as far as they have been met."""
        added, others, by_rank = [], [], []
        family, reads_of_all = self._family, view.reads
        for index in alike:
            found, reads = family.evaluated(index, values, self._allocate[index])
            if "rank" not in reads and numbers.isdisjoint(reads):
                # the sum is kept, so its parts need not be
                reads_of_all.update(reads)
                if found is not None:
                    added.append(found)
                continue
            found, reads = family.keep(index, values, (found, reads))
            before, reads_any, _ = self._before(reads, numbers)
            if reads_any:
                others.append((tuple(reads), index))
            else:
                by_rank.append(index)
            reads_of_all.update(before)
        return _Several(added, others, by_rank)

    def _before(
        self, reads: dict[str, None], numbers: frozenset[str]
    ) -> tuple[dict[str, None], bool, bool]:
        """What is read before the first of ``numbers``; whether any is, and the rank."""
        key = id(reads), id(numbers)  # both are kept: see ``view.Noted``
        known = self._reads.get(key)
        if known is None:
            before = dict.fromkeys(takewhile(lambda name: name not in numbers, reads))
            known = before, not numbers.isdisjoint(reads), "rank" in reads
            self._reads[key] = known
        return known


class _Allocate:
    """One ledger entry as a formula: device, bytes (all ranks of a node off the GPU), moments."""

    __slots__ = ("_entry", "_ranks")

    def __init__(self, entry: Entry, ranks: int) -> None:
        self._entry = entry
        self._ranks = ranks

    def __call__(self, view: Any) -> Footprint | None:
        found = footprint(self._entry, view, self._ranks)
        if found is None:
            return None
        device, size, moments = found
        return device, size, _places(moments)


@lru_cache(maxsize=256)
def _places(moments: frozenset[Moment]) -> tuple[int, ...]:
    return tuple([PLACE[moment] for moment in moments])


def add(row: list[int], size: int, places: tuple[int, ...]) -> None:
    """Add bytes at some moments."""
    for place in places:
        row[place] += size


def highest_of(row: list[int]) -> Use:
    """The highest moment; the earliest of equals."""
    size = max(row)
    return Use(size, MOMENTS[row.index(size)])
