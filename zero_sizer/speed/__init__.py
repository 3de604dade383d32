"""How long a step takes: a model of declared terms, with an interval rather than a point."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zero_sizer.hardware.cluster import Cluster
from zero_sizer.plan.plan import Plan
from zero_sizer.speed.model import StepTime, TermTime, step_time
from zero_sizer.speed.rates import Case, Rate, explain

if TYPE_CHECKING:
    from zero_sizer.sizing import Sizing

__all__ = ["Case", "Rate", "StepTime", "TermTime", "as_mapping", "estimate", "explain", "step_time"]

_NAMES = {Case.LOW: "low", Case.EXPECTED: "expected", Case.HIGH: "high"}


def estimate(sizing: "Sizing") -> Mapping[str, Any] | None:
    """The ``speed`` block of the JSON contract for a sized job; None when nobody can say."""
    return as_mapping(sizing.plan, sizing.job.cluster)


def as_mapping(plan: Plan | None, cluster: Cluster) -> Mapping[str, Any] | None:
    """The ``speed`` block of the JSON contract; None when nobody can say (no GPU, no plan)."""
    if plan is None:
        return None
    times = {case: step_time(plan, cluster, case) for case in Case}
    expected = times[Case.EXPECTED]
    if expected is None or not expected.seconds:
        return None
    throughput = {case: time.tokens_per_second for case, time in times.items() if time}
    has_tokens = plan.feed is None or plan.feed.has_tokens
    return {
        "counted": "tokens" if has_tokens else "samples",
        "step_seconds": {_NAMES[case]: time.seconds for case, time in times.items() if time},
        # the fastest step has the highest throughput
        "tokens_per_second_per_gpu": {
            "low": throughput[Case.HIGH],
            "expected": throughput[Case.EXPECTED],
            "high": throughput[Case.LOW],
        },
        "terms": [_part(part) for part in expected.parts],
        "rates": [
            {
                "name": r.name,
                "low": min(r.values),
                "expected": r.values[1],
                "high": max(r.values),
                "unit": r.unit,
                "origin": r.origin,
            }
            for r in explain(
                cluster, plan.autocast_dtype or plan.model_dtype, plan.attention_kernel
            )
        ],
    }


def _part(part: TermTime) -> dict[str, Any]:
    term = part.term
    return {
        "name": term.name,
        "kind": term.kind.value,
        "per": term.per.value,
        "seconds": part.seconds,
        "visible_seconds": part.visible_seconds,
        "formula": term.formula,
        "source": term.source,
    }
