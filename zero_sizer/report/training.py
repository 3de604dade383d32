"""A training run's days, money and energy for a reader."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from zero_sizer.advise.curve import Point
from zero_sizer.report.table import show_line
from zero_sizer.speed.training import Estimate, Training

MARKS = "goal"
_FEW = 100.0  # days below which a decimal is shown


def show_training(training: Training) -> None:
    """Print how long the run takes, what it costs, and what that rests on."""
    for line in lines(training):
        show_line(line)


def show_run(training: Training | None, in_time: Point | None, *, is_alike: bool) -> None:
    """Print the run of a chosen plan, and the fewest nodes that would meet its goal.

    Args:
        training: the run.
        in_time: the fewest nodes.
        is_alike: the nodes are alike, so that other numbers of them were tried.
    """
    if training is None:
        return
    print()
    show_training(training)
    if in_time is not None and in_time.training is not None:
        plan, run = in_time.plan, in_time.training
        nodes = f"{plan.nodes} node{'' if plan.nodes == 1 else 's'}"
        price = f", ${number(run.usd.expected)}" if run.usd else ""
        show_line(
            f"the fewest nodes that meet the goal: {nodes} ({_gpus(run)}), {plan.strategy.name}, "
            f"{days(run.days.expected)} days{price}"
        )
    elif is_alike and training.goal.target_days is not None:
        show_line("no number of such nodes up to 64 meets the goal")


def run_columns(runs: Sequence[Training | None]) -> list[list[str]]:
    """Days, price and what the goal misses, each under its head; none without runs."""
    if not any(runs):
        return []
    columns = [["days", *("" if run is None else days(run.days.expected) for run in runs)]]
    if any(run and run.usd for run in runs):
        prices = (number(run.usd.expected) if run and run.usd else "" for run in runs)
        columns.append(["USD", *prices])
    marks = [", ".join(run.marks) if run else "" for run in runs]
    return [*columns, [MARKS, *marks]] if any(marks) else columns


def lines(training: Training) -> Iterator[str]:
    """The run in sentences."""
    low, expected, high = map(day, training.finish)
    found = training.days
    yield (
        f"{training.goal.about} ({training.goal.origin}): {days(found.expected)} days "
        f"({days(found.low)} to {days(found.high)}), done on {expected} ({low} to {high})"
    )
    words = [f"{training.tokens_per_second.expected:,.0f} tokens/s over {_gpus(training)}"]
    if training.mfu:
        mfu = training.mfu
        words.append(f"MFU {mfu.expected:.0%} ({mfu.low:.0%} to {mfu.high:.0%})")
    if training.kwh:
        words.append(f"{number(training.kwh.expected)} kWh ({_span(training.kwh)})")
    if training.usd:
        words.append(f"${number(training.usd.expected)} (${_span(training.usd)})")
    yield ", ".join(words)
    if training.days_over is not None:
        yield f"{days(training.days_over)} days more than --target-days {_wanted(training)}"
    if training.usd_over is not None:
        yield f"${number(training.usd_over)} more than --budget {_budget(training)}"
    yield "assumed: " + "; ".join(training.assumptions)


def days(value: float) -> str:
    """Days with as many decimals as mean something."""
    if value >= 1e6:
        return f"{value:.3g}"
    if value >= _FEW:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def number(value: float) -> str:
    """Money or energy: whole from a hundred on."""
    if value >= 1e15:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def day(value: date | None) -> str:
    """A day; its absence where the calendar ends before."""
    return value.isoformat() if value else "no day of this calendar"


def _span(estimate: Estimate) -> str:
    return f"{number(estimate.low)} to {number(estimate.high)}"


def _gpus(training: Training) -> str:
    return f"{training.gpus:,} GPU{'' if training.gpus == 1 else 's'}"


def _wanted(training: Training) -> str:
    return f"{training.goal.target_days:g}"


def _budget(training: Training) -> str:
    return f"{number(training.goal.budget or 0.0)}"


def as_mapping(training: Training) -> Mapping[str, Any]:
    """The ``training`` block of the JSON contract."""
    goal, costs = training.goal, training.goal.costs
    names = ("low", "expected", "high")
    return {
        "asked": goal.about,
        "origin": goal.origin,
        "tokens": training.tokens,
        "steps": training.steps,
        "gpus": training.gpus,
        "tokens_per_second": training.tokens_per_second._asdict(),
        "mfu": training.mfu and training.mfu._asdict(),
        "days": training.days._asdict(),
        "start": goal.start.isoformat(),
        "finish": {
            name: day and day.isoformat() for name, day in zip(names, training.finish, strict=True)
        },
        "gpu_hours": training.gpu_hours._asdict(),
        "kwh": training.kwh and training.kwh._asdict(),
        "usd": training.usd and training.usd._asdict(),
        "usd_per_gpu_hour": costs.usd_per_gpu_hour,
        "price_origin": costs.price_origin,
        "board_watts": training.watts,
        "node_watts_over_gpus": costs.node_share,
        "pue": costs.pue,
        "assumptions": list(training.assumptions),
        "target_days": goal.target_days,
        "budget": goal.budget,
        "days_over": training.days_over,
        "usd_over": training.usd_over,
        "marks": list(training.marks),
    }
