"""The rate that a measured step time tells of: the one that this step hangs on most."""

from dataclasses import replace
from math import sqrt

from zero_sizer.hardware.assemble import RATES
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.plan.plan import Plan
from zero_sizer.speed.model import step_time
from zero_sizer.speed.rates import explain
from zero_sizer.util.records import dataclass

_SPAN = 100.0  # a rate is looked for within this factor of what is expected of the hardware
_HALVINGS = 60


@dataclass(frozen=True, kw_only=True)
class Achieved:
    """A rate with which the predicted step takes as long as the measured one.

    Attributes:
        name: of ``RATES``.
        value: in the unit that its name says; None where no value explains the step.
        expected_seconds: of the step, by the published rates.
    """

    name: str
    value: float | None
    expected_seconds: float


def achieved(plan: Plan, cluster: Cluster, seconds: float) -> Achieved | None:
    """The rate that explains a step of so many seconds, all others being as published.

    Args:
        plan: the job.
        cluster: with its GPU and no rates of its own.
        seconds: of one optimizer step.

    Returns:
        None where no GPU of the table was named.
    """
    before = step_time(plan, cluster)
    if before is None or not before.seconds:
        return None
    usual = {
        rate.name: rate.values[1]
        for rate in explain(cluster, plan.autocast_dtype or plan.model_dtype, plan.attention_kernel)
        if rate.name in RATES
    }

    def with_rate(name: str, value: float) -> float:
        time = step_time(plan, replace(cluster, rates={**cluster.rates, name: value}))
        return time.seconds if time is not None else 0.0

    name = min(usual, key=lambda n: with_rate(n, usual[n] * 2))
    slow, fast = usual[name] / _SPAN, usual[name] * _SPAN
    if not with_rate(name, fast) <= seconds <= with_rate(name, slow):
        return Achieved(name=name, value=None, expected_seconds=before.seconds)
    for _ in range(_HALVINGS):
        middle = sqrt(slow * fast)
        if with_rate(name, middle) > seconds:
            slow = middle
        else:
            fast = middle
    return Achieved(name=name, value=fast, expected_seconds=before.seconds)
