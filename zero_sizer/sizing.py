"""The pipeline in one function: a job in, the whole answer out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from zero_sizer import capacity, checks, features
from zero_sizer.config import resolve
from zero_sizer.config.settings import Setting
from zero_sizer.findings import Finding, Severity
from zero_sizer.job import Job
from zero_sizer.ledger import Allocation, evaluate
from zero_sizer.moments import Moment
from zero_sizer.passes.remarks import UNKNOWN, remarks
from zero_sizer.passes.requests import largest_request
from zero_sizer.peak import Peak, peak_of, totals
from zero_sizer.plan import Device, Plan
from zero_sizer.planning import plan_job
from zero_sizer.ranks import at_highest_rank


class Verdict(Enum):
    """Whether the job fits."""

    FITS = "fits"
    DOES_NOT_FIT = "does_not_fit"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The answer to "what will this job need?".

    Attributes:
        job: as read.
        plan: everything resolved, on the rank whose GPU needs most; None when the job could not be
            planned.
        settings: key or flag -> value and origin.
        allocations: of that rank, in ledger order.
        moments: device -> moment -> live bytes (that rank's on the GPU, per node elsewhere).
        peaks: device -> its highest instant.
        capacities: device -> what the cluster has of it.
        findings: everything wrong or worth knowing, worst first.
        verdict: fits, does not fit, or uncertain.
    """

    job: Job
    plan: Plan | None
    settings: Mapping[str, Setting]
    allocations: tuple[Allocation, ...]
    moments: Mapping[Device, Mapping[Moment, int]]
    peaks: Mapping[Device, Peak]
    capacities: Mapping[Device, capacity.Capacity]
    findings: tuple[Finding, ...]
    verdict: Verdict


def size(job: Job) -> Sizing:
    """Predict what a job needs and whether it fits."""
    settings, findings = resolve.resolve(
        job.document, job.workload, world_size=job.cluster.world_size, model=job.model
    )
    context = checks.Context(
        document=job.document,
        settings=settings,
        cluster=job.cluster,
        workload=job.workload,
        model=job.model,
    )
    planned = plan_job(job, settings)
    plan = at_highest_rank(planned.plan) if planned.plan else None
    collected = [*findings, *checks.run(context), *planned.findings]
    allocations = tuple(evaluate(features.ENTRIES, plan)) if plan else ()
    collected += [_at_line(f, job) for f in remarks(plan)] if plan else []
    moments = totals(allocations, job.cluster.gpus_per_node)
    peaks = {device: peak_of(per_moment) for device, per_moment in moments.items()}
    capacities = capacity.capacities(job.cluster)
    request = largest_request(plan) if plan else 0
    collected += capacity.findings(peaks, capacities, request)
    collected += [*capacity.unpublished(job.cluster), *capacity.overstated(job.cluster)]
    fits = capacity.fits(peaks, capacities, request)
    return Sizing(
        job=job,
        plan=plan,
        settings=planned.settings,
        allocations=allocations,
        moments=moments,
        peaks=peaks,
        capacities=capacities,
        findings=tuple(sorted(collected, key=lambda f: list(Severity).index(f.severity))),
        verdict=_verdict(plan is not None, fits, capacities, collected),
    )


def _at_line(finding: Finding, job: Job) -> Finding:
    return replace(finding, line=job.document.line(finding.key) if finding.key else 0)


def is_doubt(finding: Finding) -> bool:
    """Whether it says that some memory is not counted, so that nothing fits for certain."""
    return finding.code.endswith("not-modelled") or finding.code == UNKNOWN


def _verdict(
    planned: bool,
    fits: Mapping[Device, capacity.Fit],
    capacities: Mapping[Device, capacity.Capacity],
    findings: list[Finding],
) -> Verdict:
    if not planned:
        return Verdict.UNCERTAIN
    if capacity.Fit.NO in fits.values():
        return Verdict.DOES_NOT_FIT
    unmodelled = any(map(is_doubt, findings))
    unresolved = any(f.code == "assumed-micro-batch" for f in findings)
    tight = any(
        fits[d] is capacity.Fit.UNKNOWN
        for d in Device
        if capacities[d].num_bytes is not None or d is Device.GPU  # host and NVMe: when stated
    )
    if tight or unmodelled or unresolved:
        return Verdict.UNCERTAIN
    return Verdict.FITS
