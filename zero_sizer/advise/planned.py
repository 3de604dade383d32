"""Plans of jobs, and what stops them or is not counted."""

from collections.abc import Iterable, Mapping, Sequence

from zero_sizer import checks
from zero_sizer.advise.limits import Shortfall
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import Allocation, evaluate
from zero_sizer.ledger.verdict import is_doubt
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import planned_of


def plan_or_errors(job: Job) -> tuple[Plan | None, tuple[Finding, ...]]:
    """The plan of a job, and the findings that stop it."""
    planned, everything = planned_of(job)
    errors = tuple(f for f in everything if f.severity is Severity.ERROR)
    unknown = tuple(planned.findings) if planned.plan is None else ()
    return planned.plan, errors or unknown


def doubts_of(job: Job) -> tuple[Finding, ...]:
    """Findings that name something of a job which is not counted."""
    context, _ = checks.resolved(job)
    return tuple(finding for finding in checks.run(context) if is_doubt(finding))


def costs_of(found: Iterable[Finding]) -> Mapping[Device, int]:
    """Bytes that findings may cost each device at most, of those whose bound is known."""
    costs = dict.fromkeys(Device, 0)
    for finding in found:
        if finding.direction is not Direction.SAVE and finding.num_bytes:
            for device in Device:
                if finding.device in ("", device.value):
                    costs[device] += finding.num_bytes
    return costs


def largest(plan: Plan, shortfall: Shortfall, count: int = 3) -> tuple[Allocation, ...]:
    """The largest allocations on a device at the moment of its peak."""
    live = [
        allocation
        for allocation in evaluate(entries.ENTRIES, plan, explain=False)
        if allocation.device is shortfall.device and shortfall.moment in allocation.moments
    ]
    return tuple(sorted(live, key=lambda a: -a.num_bytes)[:count])


def shared_error(refusals: Iterable[Sequence[Finding]]) -> Finding | None:
    """The first error that all of several strategies have; None: there is none."""
    rows = list(refusals)
    codes = [{error.code for error in row} for row in rows]
    return next((e for e in rows[-1] if all(e.code in of for of in codes)), None) if rows else None
