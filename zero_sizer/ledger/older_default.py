"""The Trainer's optimizer where nobody named one: older versions of torch make it take more."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from zero_sizer.findings import Direction, Finding
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import Moment
from zero_sizer.ledger.peak import totals
from zero_sizer.optimizers import trainer
from zero_sizer.plan.plan import Plan
from zero_sizer.units import format_gib

CODE = "as-the-trainer"
_OLDER = "adamw_torch"


def with_older_default(
    findings: Sequence[Finding], plan: Plan, moments: Mapping[Device, Mapping[Moment, int]]
) -> list[Finding]:
    """The findings, of which the one about that optimizer says what the older default adds.

    Before torch 2.8 the Trainer brings AdamW that is not fused (transformers 5.23
    training_args.py:806-811), whose foreach step holds temporaries.
    """
    if not any(finding.code == CODE for finding in findings):
        return list(findings)
    older = trainer.row(_OLDER, swaps=False)
    if older is None or plan.optimizer is not trainer.row(None, swaps=False):
        return list(findings)
    other = replace(plan, optimizer=older, group_optimizers=(older,) * len(plan.group_optimizers))
    with_it = totals(evaluate(entries.of(other), other, explain=False), plan.ranks_per_node)
    more = max(with_it[Device.GPU].values()) - max(moments[Device.GPU].values())
    if more <= 0:
        return list(findings)
    return [_costing(f, more) if f.code == CODE else f for f in findings]


def _costing(finding: Finding, num_bytes: int) -> Finding:
    message = (
        f"{finding.message}; with torch before 2.8 it brings one that is not fused, which takes "
        f"{format_gib(num_bytes)} more at the peak of its step"
    )
    return replace(
        finding,
        message=message,
        remedy=f"give --optim {trainer.DEFAULT} or {_OLDER}",
        direction=Direction.COST,
        num_bytes=num_bytes,
    )
