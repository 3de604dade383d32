"""How long a whole training run takes, and what it costs: steps times the time of one."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import TYPE_CHECKING, NamedTuple

from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.goal import Goal
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.plan.plan import Plan
from zero_sizer.speed.fed import work_for
from zero_sizer.speed.model import step_time
from zero_sizer.speed.rates import Case, peak_flops
from zero_sizer.units import ceil_div
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:
    from zero_sizer.sizing import Sizing

_DAY, _HOUR = 86_400.0, 3_600.0


class Estimate(NamedTuple):
    """Three numbers: low, expected, high."""

    low: float
    expected: float
    high: float

    def map(self, function: Callable[[float], float]) -> "Estimate":
        """Each of them through ``function``, which must not turn their order."""
        return Estimate(*map(function, self))


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training run on one plan.

    Attributes:
        goal: what was asked for.
        tokens: that pass through the model.
        steps: optimizer steps; the last one may see fewer samples.
        gpus: GPUs that it runs on.
        tokens_per_second: over all GPUs.
        mfu: model FLOP/s over the GPUs' peak, as PaLM counts them: forward and backward without
            recomputation, attention without the saving of a causal mask (arXiv:2204.02311,
            appendix B). None where the GPU's peak is not known.
        days: low is the fastest case.
        finish: the day on which it ends, in each case; None beyond the calendar.
        gpu_hours: of all GPUs.
        kwh: at full board power, the rest of the nodes and of the data center included; None
            where the board power is not known.
        usd: None where no price is known.
        watts: board power of one GPU.
        watts_source: where that was published.
    """

    goal: Goal
    tokens: int
    steps: int
    gpus: int
    tokens_per_second: Estimate
    mfu: Estimate | None
    days: Estimate
    finish: tuple[date | None, date | None, date | None]
    gpu_hours: Estimate
    kwh: Estimate | None
    usd: Estimate | None
    watts: int | None
    watts_source: str

    @property
    def is_in_time(self) -> bool:
        """True if the run is expected to take no longer than it may."""
        wanted = self.goal.target_days
        return wanted is None or self.days.expected <= wanted

    @property
    def is_in_budget(self) -> bool:
        """True if the run is expected to cost no more than it may."""
        wanted = self.goal.budget
        return wanted is None or self.usd is None or self.usd.expected <= wanted

    @property
    def marks(self) -> tuple[str, ...]:
        """Goals that the run misses: ``late``, ``over budget``."""
        late, dear = not self.is_in_time, not self.is_in_budget
        return (*(("late",) if late else ()), *(("over budget",) if dear else ()))

    @property
    def days_over(self) -> float | None:
        """Days beyond the target; None where it is met."""
        if self.is_in_time or self.goal.target_days is None:
            return None
        return self.days.expected - self.goal.target_days

    @property
    def usd_over(self) -> float | None:
        """USD beyond the budget; None where it is met."""
        if self.is_in_budget or self.usd is None or self.goal.budget is None:
            return None
        return self.usd.expected - self.goal.budget

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Statements that the figures rest on, for a reader."""
        costs = self.goal.costs
        found = [f"start {self.goal.start} ({self.goal.start_origin})"]
        if costs.usd_per_gpu_hour is None:
            found.append(costs.price_origin)
        else:
            found.append(f"${costs.usd_per_gpu_hour:,.2f} a GPU-hour ({costs.price_origin})")
        if self.watts is None:
            found.append("no board power known: no energy")
        else:
            found.append(
                f"all GPUs at full board power, {self.watts} W ({self.watts_source}), x "
                f"{costs.node_share:g} for the rest of a node ({costs.node_origin}), x "
                f"{costs.pue:g} for the data center ({costs.pue_origin})"
            )
        return tuple(found)


def training_of(plan: Plan, cluster: Cluster, goal: Goal) -> Training | None:
    """The run of a plan; None when nobody can say how fast it is (no GPU)."""
    times = [step_time(plan, cluster, case) for case in Case]
    if cluster.gpu is None or any(time is None or not time.seconds for time in times):
        return None
    seconds = Estimate(*(time.seconds for time in times if time is not None))
    gpus = plan.dp_world_size
    per_step = plan.micro_batch * plan.seq_len * plan.grad_accum * gpus
    tokens = goal.total_tokens(plan.seq_len)
    steps = ceil_div(tokens, per_step)
    days = seconds.map(lambda each: steps * each / _DAY)
    hours = days.map(lambda each: each * _DAY / _HOUR * gpus)
    rates = Estimate(*(per_step / each for each in reversed(seconds)))  # slowest first
    low, expected, high = (_finish(goal.start, each) for each in days)
    costs, watts = goal.costs, cluster.gpu.board_watts
    price = costs.usd_per_gpu_hour
    return Training(
        goal=goal,
        tokens=tokens,
        steps=steps,
        gpus=gpus,
        tokens_per_second=rates,
        mfu=_mfu(plan, cluster, rates.map(lambda each: each / gpus)),
        days=days,
        finish=(low, expected, high),
        gpu_hours=hours,
        kwh=hours.map(lambda each: each * watts / 1e3 * costs.node_share * costs.pue)
        if watts
        else None,
        usd=hours.map(lambda each: each * price) if price else None,
        watts=watts,
        watts_source=cluster.gpu.board_watts_source,
    )


def of_sizing(sizing: "Sizing", goal: Goal | None) -> Training | None:
    """The run of a sized job; None for one that cannot run, or when nobody can say."""
    cannot = sizing.verdict is Verdict.DOES_NOT_FIT or not sizing.is_valid
    if goal is None or sizing.plan is None or cannot:
        return None
    return training_of(sizing.plan, sizing.job.cluster, goal)


def model_flops(plan: Plan) -> float:
    """FLOPs of the model for one token, forward and backward, without recomputation."""
    work = work_for(plan)
    if work is None:
        return 0.0
    products = (3.0 - work.frozen_share) * (work.block_flops + work.head_flops)
    return products + 3.0 * work.attention_flops * plan.seq_len


def _mfu(plan: Plan, cluster: Cluster, per_gpu: Estimate) -> Estimate | None:
    if cluster.gpu is None:
        return None
    peak = peak_flops(cluster.gpu, plan.autocast_dtype or plan.model_dtype)
    flops = model_flops(plan)
    return per_gpu.map(lambda each: each * flops / peak) if peak and flops else None


def _finish(start: date, days: float) -> date | None:
    try:
        return start + timedelta(days=days)
    except OverflowError:
        return None
