"""Which ledger entries stand behind the largest differences from a recording."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from zero_sizer.crosscheck.compare import Cause, Crosscheck, Row, left_by, tensors_of, worst_ranks
from zero_sizer.dryrun.recording import RankRecord, Recording
from zero_sizer.job.read import Job
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.moments import Moment
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import size

_MOST = 5  # differences explained
_NAMES = 5  # entries named for each
_SUMS = ("live", "model states", "allocated")  # their categories are rows of their own


def explained(check: Crosscheck, job: Job, recording: Recording) -> Crosscheck:
    """``check`` (from ``against_recording`` of the same two) with the causes of its differences."""
    plan = size(job).plan
    if plan is None:
        return check
    records = {record.rank: record for record in recording.ranks}
    ranks = ", ".join(str(rank) for rank in sorted(records))
    note = f"{recording.how}: rank {ranks} of {recording.world_size}"
    causes = tuple(
        _cause(row, plan, records[row.rank]) for row in _largest(check.rows) if row.rank is not None
    )
    return replace(check, causes=causes, notes=(*check.notes, note))


def _largest(rows: Iterable[Row]) -> list[Row]:
    """The largest differences; one that lasts through several phases is named once."""
    off = [
        row
        for row in worst_ranks(rows)
        if row.predicted != row.witnessed and row.quantity not in _SUMS
    ]
    off.sort(key=lambda row: -abs(row.predicted - row.witnessed))
    once = {(row.device, row.quantity, row.predicted, row.witnessed): row for row in reversed(off)}
    return list(reversed(once.values()))[:_MOST]


def _cause(row: Row, plan: Plan, record: RankRecord) -> Cause:
    if row.quantity == "peak":
        here = [a for a in tensors_of(plan, record.rank) if a.device.value == row.device]
        return Cause(row=row, entries=_top(_at_peak(here, row.phase)), seen={})
    entries = _sums(
        (a.name, a.num_bytes)
        for a in left_by(plan, record.rank, row.phase)
        if (a.category.value, a.device.value) == (row.quantity, row.device) and a.num_bytes
    )
    phase = record.last_listed(row.phase)
    seen = _sums(
        (buffer.name, buffer.num_bytes)
        for buffer in (phase.live if phase is not None else ())
        if (buffer.category, buffer.device) == (row.quantity, row.device)
    )
    agreed = {name for name in entries if entries[name] == seen.get(name)}
    return Cause(
        row=row, entries=_top(_without(entries, agreed)), seen=_top(_without(seen, agreed))
    )


def _at_peak(allocations: list[Allocation], phase: str) -> dict[str, int]:
    moments = [moment for moment in Moment if moment.phase.value == phase]
    highest = max(moments, key=lambda m: sum(a.num_bytes for a in allocations if m in a.moments))
    return _sums((a.name, a.num_bytes) for a in allocations if highest in a.moments)


def _sums(parts: Iterable[tuple[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, num_bytes in parts:
        sums[name] = sums.get(name, 0) + num_bytes
    return sums


def _without(sums: Mapping[str, int], names: set[str]) -> dict[str, int]:
    return {name: num_bytes for name, num_bytes in sums.items() if name not in names}


def _top(sums: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(sums.items(), key=lambda item: -item[1])[:_NAMES])
