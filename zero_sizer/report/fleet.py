"""Cluster sizes for a reader at a terminal, and as JSON."""

import json
from collections.abc import Iterator
from typing import Any

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.fleet import WORTH_IT, Fewest, Fleet, Size
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.advice import (
    assumptions,
    plan_mapping,
    show_doubt,
    warnings,
    warnings_mapping,
    why,
)
from zero_sizer.report.json import reason_mapping
from zero_sizer.report.table import gib, show_line, show_table
from zero_sizer.report.verdict import reason_line
from zero_sizer.util.terminal import output_columns

_DAY = 86_400
_COUNTED = {"gpus": "GPUs", "nodes": "nodes"}
_WIDE = 72  # columns for the whole table
_PER_GPU = 6  # column of tokens a GPU


def show_fleet(fleet: Fleet, *, tokens: float | None = None, wanted: float | None = None) -> None:
    """Print the sizes, the fewest nodes per strategy, and the answer to the target."""
    job = fleet.search.job
    gpu = job.cluster.gpu.name if job.cluster.gpu else "GPUs"
    print(f"{job.model.name} on nodes of {job.cluster.gpus_per_node} {gpu}")
    if fleet.is_free:
        show_line(
            "batch: free; at every size all are compared at what the fastest takes without "
            "accumulation (--train-batch-size fixes it)"
        )
    for line in assumptions(fleet.search, fleet.smallest, is_free=fleet.is_free):
        if not (fleet.is_free and line.startswith("batch")):
            show_line(line)
    for line in _answers(fleet, wanted, tokens):
        show_line(line)
    if fleet.smallest is not None:
        show_doubt(fleet.verdict, fleet.reasons)
    print()
    _show_sizes(fleet, tokens)
    print()
    _show_fewest(fleet)
    if fleet.search.warnings:
        print()
        for line in warnings(fleet.search):
            show_line(line)


def _answers(fleet: Fleet, wanted: float | None, tokens: float | None) -> Iterator[str]:
    if wanted is not None:
        if fleet.target is None:
            largest = fleet.sizes[-1].nodes
            yield f"no size up to {largest} nodes reaches {wanted:,.0f} tokens/s"
        else:
            days = f", {_days(fleet.target, tokens)} days" if tokens else ""
            yield (
                f"{wanted:,.0f} tokens/s: {_count(fleet.target)}, {fleet.target.strategy.name}, "
                f"{fleet.target.tokens_per_second:,.0f} expected{days}"
            )
    fewest = fleet.smallest
    if fewest is None:
        sure = "" if fleet.verdict is Verdict.DOES_NOT_FIT else " for certain"
        yield f"nothing fits{sure} on up to {fleet.sizes[-1].nodes} nodes"
        yield from (f"    {reason_line(reason)}" for reason in fleet.reasons[:1])
        return
    yield (
        f"the fewest {_COUNTED[fleet.fewest_of]}: {_count(fewest)}, {fewest.strategy.name}, "
        f"{fewest.tokens_per_second:,.0f} tokens/s"
    )
    if fleet.stops_helping is None:
        yield f"more nodes help up to {fleet.sizes[-1].nodes}, the most considered"
    else:
        yield (
            f"more than {fleet.stops_helping} nodes stop helping: a further one brings less than "
            f"{WORTH_IT:.0%} of its share, or the batch cannot be split"
        )


def _count(plan: Candidate) -> str:
    nodes = f"{plan.nodes} node{'s' if plan.nodes > 1 else ''}"
    return f"{nodes} ({plan.world_size} GPU{'s' if plan.world_size > 1 else ''})"


def _days(plan: Candidate, tokens: float | None) -> str:
    return f"{tokens / plan.tokens_per_second / _DAY:,.1f}" if tokens else ""


def _show_sizes(fleet: Fleet, tokens: float | None) -> None:
    heads = ["nodes", "GPUs", "best plan", "batch x steps", "ckpt", "tokens/s", "a GPU", "GPU GiB"]
    heads += ["days"] if tokens else []
    table = [heads, *(_size_row(fleet, size, tokens) for size in fleet.table)]
    right = (0, 1, *range(5, len(heads)))
    if output_columns() < _WIDE:  # tokens a GPU follow from the two beside them
        table = [row[:_PER_GPU] + row[_PER_GPU + 1 :] for row in table]
        right = right[:-1]
    show_table(table[0], table[1:], right=right)


def _size_row(fleet: Fleet, size: Size, tokens: float | None) -> list[str]:
    gpus = size.nodes * fleet.search.job.cluster.gpus_per_node
    plan = size.best
    if plan is None:
        return [str(size.nodes), str(gpus), "nothing fits", *[""] * (6 if tokens else 5)]
    return [
        str(size.nodes),
        str(gpus),
        plan.strategy.name,
        f"{plan.micro_batch} x {plan.grad_accum}",
        "yes" if plan.checkpointing else "no",
        f"{plan.tokens_per_second:,.0f}",
        f"{plan.tokens_per_second / plan.world_size:,.0f}",
        gib(plan.uses[Device.GPU].num_bytes),
        *([_days(plan, tokens)] if tokens else []),
    ]


def _show_fewest(fleet: Fleet) -> None:
    rows = [
        (row.strategy.name, _count(row.plan) if row.plan else "none", _detail(row))
        for row in fleet.fewest
    ]
    show_table(("strategy", "fewest that fit", ""), rows)


def _detail(row: Fewest) -> str:
    if row.plan is None:
        at = f"on {row.loss.closest.nodes} nodes: " if row.loss and row.loss.closest else ""
        return f"{at}{why(row.loss)}" if row.loss else ""
    checkpointing = "with" if row.plan.checkpointing else "without"
    return (
        f"micro batch {row.plan.micro_batch} x {row.plan.grad_accum} {checkpointing} "
        "checkpointing, "
        f"{row.plan.tokens_per_second:,.0f} tokens/s"
    )


def print_fleet(fleet: Fleet, *, tokens: float | None = None, wanted: float | None = None) -> None:
    """Print the sizes as JSON; ``wanted`` is in them as the target's plan."""
    print(json.dumps(fleet_mapping(fleet, tokens), indent=1, default=str))


def fleet_mapping(fleet: Fleet, tokens: float | None = None) -> dict[str, Any]:
    """The sizes as JSON."""
    return {
        "schema_version": 1,
        "verdict": fleet.verdict.value,
        "reasons": [reason_mapping(reason) for reason in fleet.reasons],
        "sizes": [
            {
                "nodes": size.nodes,
                "best": plan_mapping(size.best) if size.best else None,
                "days": tokens / size.best.tokens_per_second / _DAY
                if tokens and size.best
                else None,
                "fits": sorted(size.by_strategy),
            }
            for size in fleet.sizes
        ],
        "fewest": [
            {
                "strategy": row.strategy.name,
                "plan": plan_mapping(row.plan) if row.plan else None,
                "reason": why(row.loss) if row.loss else "",
            }
            for row in fleet.fewest
        ],
        "stops_helping": fleet.stops_helping,
        "warnings": warnings_mapping(fleet.search),
        "fewest_of": fleet.fewest_of,
        "batch": {
            "is_free": fleet.is_free,
            "train_batch_size": fleet.search.batch.train_batch,
            "seq_len": fleet.search.seq_len if fleet.search.sweep else None,
        },
        "target": plan_mapping(fleet.target) if fleet.target else None,
    }
