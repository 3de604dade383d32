"""Rules over a resolved config: what DeepSpeed refuses, ignores, or does unexpectedly.

One theme a file, one small function a rule. To add a rule, write it in its theme file and name it
in that file's ``RULES``.
"""

from collections.abc import Iterator

from zero_sizer.checks import (
    adapter,
    forward,
    freeze,
    groups,
    idle,
    ignored,
    inputs,
    measured,
    numbers,
    offload,
    optimizer,
    parallel,
    precision,
    reduction,
    saving,
    scheduler,
    shapes,
    trainer,
    zenflow,
)
from zero_sizer.config.context import Context, Rule
from zero_sizer.findings import Finding, Severity
from zero_sizer.job.read import Job
from zero_sizer.plan.resolve import settings_of

RULES: tuple[Rule, ...] = (
    *precision.RULES,
    *optimizer.RULES,
    *trainer.RULES,
    *scheduler.RULES,
    *reduction.RULES,
    *offload.RULES,
    *zenflow.RULES,
    *parallel.RULES,
    *groups.RULES,
    *shapes.RULES,
    *adapter.RULES,
    *freeze.RULES,
    *forward.RULES,
    *inputs.RULES,
    *ignored.RULES,
    *idle.RULES,
    *numbers.RULES,
    *saving.RULES,
    *measured.RULES,
)


def resolved(job: Job) -> tuple[Context, list[Finding]]:
    """Resolves a job's config: the context of every rule, and what was found wrong on the way."""
    settings, findings = settings_of(job)
    context = Context(
        document=job.document,
        settings=settings,
        cluster=job.cluster,
        workload=job.workload,
        model=job.model,
    )
    return context, [*job.findings, *findings]


def run(context: Context) -> list[Finding]:
    """Everything the rules find, worst first, then by line."""
    return sorted(_found(context), key=_rank)


def _found(context: Context) -> Iterator[Finding]:
    for rule in RULES:
        yield from rule(context)


def _rank(finding: Finding) -> tuple[int, int]:
    return list(Severity).index(finding.severity), finding.line


__all__ = ["RULES", "Context", "Rule", "run"]
