"""The pipeline in one function: a job in, the whole answer out."""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from zero_sizer import checks
from zero_sizer.config.settings import Setting
from zero_sizer.config.workload import INFERENCE
from zero_sizer.findings import Direction, Finding, Reason, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger import capacity, entries, fragmentation
from zero_sizer.ledger.entry import Allocation, evaluate
from zero_sizer.ledger.kept_pinned import kept_pinned
from zero_sizer.ledger.moments import Moment, Phase
from zero_sizer.ledger.older_default import with_older_default
from zero_sizer.ledger.peak import Peak, peak_of, totals
from zero_sizer.ledger.ranks import OnRank, at_highest_rank, highest_of
from zero_sizer.ledger.requests import room_of
from zero_sizer.ledger.verdict import (
    Need,
    Verdict,
    decide,
    doubts,
    is_assumption,
    need_of,
    not_stated,
)
from zero_sizer.models.attention import FLASH
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.resolve import Planned, plan_of
from zero_sizer.timeline.remarks import remarks
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass


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
        needs: device -> the least, the expected and the most that it takes with everything else.
        findings: everything wrong or worth knowing, worst first.
        verdict: fits, does not fit, or uncertain.
        reasons: what decides the verdict, the most telling first; empty where the job fits.
        higher: phases in which the GPU of another rank holds more than that rank's -> the most.
    """

    job: Job
    plan: Plan | None
    settings: Mapping[str, Setting]
    allocations: tuple[Allocation, ...]
    moments: Mapping[Device, Mapping[Moment, int]]
    peaks: Mapping[Device, Peak]
    capacities: Mapping[Device, capacity.Capacity]
    needs: Mapping[Device, Need]
    findings: tuple[Finding, ...]
    verdict: Verdict
    reasons: tuple[Reason, ...]
    higher: Mapping[Phase, OnRank] = field(default_factory=dict)

    @property
    def is_valid(self) -> bool:
        """True if DeepSpeed would run the job at all."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def shortfall(self, device: Device) -> int:
        """Bytes that a device is short of for certain; 0 where none are."""
        return self.needs[device].shortfall(self.capacities[device])


def size(job: Job) -> Sizing:
    """Predict what a job needs and whether it fits."""
    planned, collected, higher = _planned(job)
    plan = planned.plan
    allocations = tuple(evaluate(entries.of(plan), plan)) if plan else ()
    moments = totals(allocations, job.cluster.gpus_per_node)
    peaks = {device: peak_of(per_moment) for device, per_moment in moments.items()}
    capacities = capacity.capacities(job.cluster, job.workload)
    if plan:
        collected = with_older_default(collected, plan, moments)
    needs = _needs(plan, moments, capacities, collected)
    verdict, reasons = (
        decide(plan, moments, needs, capacities, collected)
        if plan
        else (Verdict.UNCERTAIN, _not_planned(planned.findings))
    )
    assumed = [finding.code for finding in collected if is_assumption(finding)]
    if plan and assumed and verdict is Verdict.DOES_NOT_FIT:
        needs |= _at_least(plan, assumed, needs, capacities, collected)
        verdict, reasons = decide(plan, moments, needs, capacities, collected)
    if plan:
        collected += not_stated(plan, moments, capacities)
        if plan.task != INFERENCE:
            gpu = Device.GPU
            collected += fragmentation.tight(peaks[gpu].num_bytes, needs[gpu], capacities[gpu])
    cluster = job.cluster
    collected += [*capacity.unpublished(cluster), *capacity.overstated(cluster)]
    # what all figures rest on, first
    collected = [*capacity.calibrated(cluster), *capacity.decimal(cluster), *collected]
    return Sizing(
        job=job,
        plan=plan,
        settings=planned.settings,
        allocations=allocations,
        moments=moments,
        peaks=peaks,
        capacities=capacities,
        needs=needs,
        findings=tuple(sorted(collected, key=lambda f: list(Severity).index(f.severity))),
        verdict=verdict,
        reasons=reasons,
        higher=higher,
    )


def planned_of(job: Job) -> tuple[Planned, list[Finding]]:
    """The plan of a training job on its first rank, and all that its config and rules say."""
    context, findings = checks.resolved(job)
    planned = plan_of(job, context.settings)
    return planned, [*findings, *checks.run(context), *planned.findings]


def _planned(job: Job) -> tuple[Planned, list[Finding], Mapping[Phase, OnRank]]:
    """The plan on the rank that needs most, all found on the way, and where others hold more."""
    if job.workload.task == INFERENCE:
        from zero_sizer.checks import inference as rules
        from zero_sizer.plan.inference import plan_inference
        from zero_sizer.timeline import generating_remarks

        planned = plan_inference(job)
        if planned.plan is None:
            return planned, [*planned.findings], {}
        found = [*rules.findings(job, planned.plan), *generating_remarks.remarks(planned.plan)]
        return planned, [*planned.findings, *found], {}
    planned, collected = planned_of(job)
    if planned.plan is None:
        return planned, collected, {}
    plan, higher = highest_of(planned.plan)
    collected += [_at_line(f, job) for f in (*remarks(plan), *kept_pinned(plan))]
    return replace(planned, plan=plan), collected, higher


def _needs(
    plan: Plan | None,
    moments: Mapping[Device, Mapping[Moment, int]],
    capacities: Mapping[Device, capacity.Capacity],
    findings: Sequence[Finding],
) -> dict[Device, Need]:
    room = room_of(plan, moments[Device.GPU]) if plan else 0
    return {
        device: need_of(
            moments[device],
            capacities[device],
            room if device is Device.GPU else 0,
            doubts(findings, device),
        )
        for device in Device
    }


def _at_least(
    plan: Plan,
    assumed: Sequence[str],
    needs: Mapping[Device, Need],
    capacities: Mapping[Device, capacity.Capacity],
    findings: Sequence[Finding],
) -> dict[Device, Need]:
    """The needs with the least that the job takes whatever else was meant than was assumed."""
    cheapest = _cheapest(plan, assumed)
    least = cheapest if cheapest.task == INFERENCE else at_highest_rank(cheapest)
    moments = totals(evaluate(entries.of(least), least, explain=False), plan.ranks_per_node)
    return {
        device: replace(needs[device], low=other.low, moment=other.moment, cheapest=tuple(assumed))
        for device, other in _needs(least, moments, capacities, findings).items()
        if other.low < needs[device].low
    }


def _cheapest(plan: Plan, assumed: Sequence[str]) -> Plan:
    """The plan as it takes least, whatever was assumed under these codes."""
    values: dict[str, Any] = {}
    if {"assumed-seq-len", "assumed-prompt"} & set(assumed):
        values["seq_len"] = 1
    if "assumed-new-tokens" in assumed:
        values["new_tokens"] = min(plan.new_tokens, 1)
    if "assumed-checkpointing" in assumed:
        values["checkpointing"] = True
    if "assumed-attention" in assumed:
        values["attention"] = FLASH
    if {"assumed-precision", "assumed-fp32-weights"} & set(assumed):
        dtypes = ("model_dtype", "built_dtype", "grad_accum_dtype", "comm_dtype")
        values |= dict.fromkeys(dtypes, DType.BF16)
        if plan.stage == 0:
            values |= dict.fromkeys(("master_dtype", "moments_dtype"), DType.BF16)
    return replace(plan, **values)


def _at_line(finding: Finding, job: Job) -> Finding:
    return replace(finding, line=job.document.line(finding.key) if finding.key else 0)


def _not_planned(findings: tuple[Finding, ...]) -> tuple[Reason, ...]:
    """Why nothing is predicted."""
    return tuple(
        Reason(
            device="",
            code=finding.code,
            direction=Direction.EITHER,
            message=finding.message,
            remedy=finding.remedy,
        )
        for finding in findings
        if finding.severity is Severity.WARNING
    )
