"""Cluster sizes for a reader at a terminal, and as JSON."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.config import ZERO
from zero_sizer.advise.emit import Edit, edits, tuned
from zero_sizer.advise.fleet import WORTH_IT, Fewest, Fleet
from zero_sizer.advise.sizes import Size
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.advice import (
    assumptions,
    measured,
    plan_mapping,
    point_mapping,
    show_doubt,
    warnings,
    warnings_mapping,
    why,
)
from zero_sizer.report.document import print_document
from zero_sizer.report.emitted import edit_mapping
from zero_sizer.report.json import reason_mapping
from zero_sizer.report.table import gib, show_line, show_table
from zero_sizer.report.training import MARKS, lines, run_columns
from zero_sizer.report.training import as_mapping as training_mapping
from zero_sizer.report.verdict import NOTHING_RUNS, rate_name, reason_line, show_words
from zero_sizer.util.terminal import output_columns

_COUNTED = {"gpus": "GPUs", "nodes": "nodes"}
_MORE = 1.005  # shown as 101 %
_WIDE = 72  # columns for the whole table
_PER_GPU = 6  # column of tokens a GPU


class Table(NamedTuple):
    """Heads, rows, and the columns that hold figures."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: tuple[int, ...] = ()


def show_fleet(fleet: Fleet) -> None:
    """Print the sizes, the fewest nodes per strategy, and the answer to the target."""
    if fleet.search.refusal is not None:
        show_words(NOTHING_RUNS, [reason_line(reason) for reason in fleet.reasons])
        show_line(where(fleet))
    else:
        _show_found(fleet)


def _show_found(fleet: Fleet) -> None:
    if fleet.smallest is not None:
        show_doubt(fleet.verdict, fleet.reasons)
    show_line(where(fleet))
    for line in (*assumed(fleet), *answers(fleet)):
        show_line(line)
    print()
    _show_sizes(fleet)
    found = curve(fleet)
    if found is not None:
        print()
        show_table(*found[:2], right=found.right)
    for line in goal_lines(fleet):
        show_line(line)
    print()
    show_table(*fewest(fleet)[:2])
    if fleet.to_buy:
        print()
        show_line(BUYS)
        show_table(*to_buy(fleet)[:2], right=(1, 2, 3))
    if fleet.search.warnings:
        print()
        for line in warnings(fleet.search):
            show_line(line)


def where(fleet: Fleet) -> str:
    """Model and machines."""
    job = fleet.search.job
    gpu = job.cluster.gpu.name if job.cluster.gpu else "GPUs"
    return f"{job.model.name} on nodes of {job.cluster.gpus_per_node} {gpu}"


def assumed(fleet: Fleet) -> Iterator[str]:
    """Assumptions behind the figures, a line each."""
    if fleet.is_free:
        yield (
            "batch: free; at every size all are compared at what the fastest takes without "
            "accumulation (--train-batch-size fixes it)"
        )
    for line in assumptions(fleet.search, fleet.smallest, is_free=fleet.is_free):
        if not (fleet.is_free and line.startswith("batch")):
            yield line


def answers(fleet: Fleet) -> Iterator[str]:
    """The target, the fewest nodes and how many help, a line each."""
    yield from _target(fleet)
    plan = fleet.smallest
    if fleet.search.refusal is not None:
        yield NOTHING_RUNS
        yield from map(reason_line, fleet.reasons)
        return
    if plan is None:
        sure = "" if fleet.verdict is Verdict.DOES_NOT_FIT else " for certain"
        yield f"nothing fits{sure} on up to {fleet.sizes[-1].nodes} nodes"
        yield from (f"    {reason_line(reason)}" for reason in fleet.reasons[:1])
        return
    yield (
        f"the fewest {_COUNTED[fleet.fewest_of]}: {_count(plan)}, {plan.strategy.name}, "
        f"{plan.tokens_per_second:,.0f} {rate_name(fleet.search.job)}"
    )
    if fleet.stops_helping is None:
        yield f"more nodes help up to {fleet.sizes[-1].nodes}, the most considered"
    else:
        why_not = (
            "the train batch cannot be split over more"
            if fleet.batch_ends
            else f"twice as many bring less than {WORTH_IT:.0%} of their share"
        )
        yield f"more than {fleet.stops_helping} nodes stop helping: {why_not}"


def _count(plan: Candidate) -> str:
    nodes = f"{plan.nodes} node{'s' if plan.nodes > 1 else ''}"
    return f"{nodes} ({plan.world_size} GPU{'s' if plan.world_size > 1 else ''})"


def _target(fleet: Fleet) -> Iterator[str]:
    """The answer to the wanted speed or goal."""
    plan, run, goal = fleet.target, fleet.target_run, fleet.goal
    largest = fleet.sizes[-1].nodes
    if fleet.wanted is not None:
        if plan is None:
            yield f"no size up to {largest} nodes reaches {fleet.wanted:,.0f} tokens/s"
        else:
            yield (
                f"{fleet.wanted:,.0f} tokens/s: {_count(plan)}, {plan.strategy.name}, "
                f"{plan.tokens_per_second:,.0f} expected"
            )
    elif goal is not None and not fleet.is_reached:
        yield f"{goal.about}: no size up to {largest} nodes meets the goal"
        if fleet.miss is not None:
            yield f"nearest: {_count(fleet.miss.plan)}, {fleet.miss.plan.strategy.name}"
            yield from lines(fleet.miss.training)
    elif plan is not None:
        yield f"the fewest nodes that meet the goal: {_count(plan)}, {plan.strategy.name}"
    if run is not None:
        yield from lines(run)


def curve(fleet: Fleet) -> Table | None:
    """Throughput, time and money over the sizes that fit; None with nothing to compare."""
    if not fleet.curve or (len(fleet.curve) < 2 and fleet.goal is None):
        return None
    runs = run_columns([point.training for point in fleet.curve])
    rows = [
        (
            str(point.plan.nodes),
            str(point.plan.world_size),
            f"{point.plan.tokens_per_second:,.0f}",
            f"{point.efficiency:.0%}",
            "" if point.gained is None else f"{point.gained:.0%}",
            *(column[index + 1] for column in runs),
        )
        for index, point in enumerate(fleet.curve)
    ]
    heads = [
        "nodes",
        "GPUs",
        rate_name(fleet.search.job),
        "efficiency",
        "of the added",
        *(c[0] for c in runs),
    ]
    right = range(len(heads) - (1 if runs and runs[-1][0] == MARKS else 0))
    return Table(heads, rows, tuple(right))


def goal_lines(fleet: Fleet) -> Iterator[str]:
    """Why GPUs do more on more nodes, and assumptions of days and prices that no run says."""
    if any(point.gained is not None and point.gained >= _MORE for point in fleet.curve):
        yield (
            "of the added above 100%: with more GPUs each holds less of the model, and a faster "
            "plan fits; efficiency is that of a GPU where it does most"
        )
    is_said = fleet.target_run is not None or fleet.miss is not None
    first = fleet.curve[0].training if fleet.curve else None
    if first is not None and not is_said and (len(fleet.curve) >= 2 or fleet.goal is not None):
        yield f"{first.goal.about}; assumed: {'; '.join(first.assumptions)}"


def sizes(fleet: Fleet) -> Table:
    """The fewest GPUs where these are a part of a node, then the best plan of each size."""
    heads = [
        "nodes",
        "GPUs",
        "best plan",
        "batch x steps",
        "ckpt",
        rate_name(fleet.search.job),
        "a GPU",
        "GPU GiB",
    ]
    rows = [_size_row(fleet, size) for size in fleet.table]
    smallest = fleet.smallest
    if smallest is not None and smallest.world_size < fleet.search.job.cluster.gpus_per_node:
        rows.insert(0, _plan_row(smallest))
    return Table(heads, rows, (0, 1, *range(5, len(heads))))


def _show_sizes(fleet: Fleet) -> None:
    heads, rows, right = sizes(fleet)
    table = [heads, *rows]
    if output_columns() < _WIDE:  # tokens a GPU follow from the two beside them
        table = [[*row[:_PER_GPU], *row[_PER_GPU + 1 :]] for row in table]
        right = right[:-1]
    show_table(table[0], table[1:], right=right)


def _size_row(fleet: Fleet, size: Size) -> list[str]:
    if size.best is not None:
        return _plan_row(size.best)
    gpus = size.nodes * fleet.search.job.cluster.gpus_per_node
    return [str(size.nodes), str(gpus), "nothing fits", *[""] * 5]


def _plan_row(plan: Candidate) -> list[str]:
    return [
        str(plan.nodes),
        str(plan.world_size),
        plan.strategy.name,
        f"{plan.micro_batch} x {plan.grad_accum}",
        "yes" if plan.checkpointing else "no",
        f"{plan.tokens_per_second:,.0f}",
        f"{plan.tokens_per_second / plan.world_size:,.0f}",
        gib(plan.uses[Device.GPU].num_bytes),
    ]


def fewest(fleet: Fleet) -> Table:
    """The fewest nodes or GPUs of each strategy, with the plan there or the reason for none."""
    rows = [
        (row.strategy.name, _count(row.plan) if row.plan else "none", _detail(fleet, row))
        for row in fleet.fewest
    ]
    return Table(("strategy", "fewest that fit", ""), rows)


BUYS = (
    "host memory was not stated, so nothing above offloads; with the most frugal settings, one "
    "sample a GPU, it would take"
)


def to_buy(fleet: Fleet) -> Table:
    """Host memory and NVMe that strategies with offload need on the fewest nodes."""
    rows = [
        (
            buy.strategy.name,
            str(buy.plan.nodes),
            f"{gib(buy.host_bytes)} GiB",
            f"{gib(buy.nvme_bytes)} GiB" if buy.nvme_bytes else "-",
            f"{buy.plan.tokens_per_second:,.0f} {rate_name(fleet.search.job)}",
        )
        for buy in fleet.to_buy
    ]
    heads = ("strategy", "nodes", "RAM a node", "NVMe a node", "")
    return Table(heads, rows, (1, 2, 3))


def _detail(fleet: Fleet, row: Fewest) -> str:
    if row.plan is None:
        at = f"on {row.loss.closest.nodes} nodes: " if row.loss and row.loss.closest else ""
        return f"{at}{why(row.loss)}" if row.loss else ""
    checkpointing = "with" if row.plan.checkpointing else "without"
    keys = "".join(f"; {_edited(edit)}" for edit in tuned(fleet.search, row.plan))
    return (
        f"micro batch {row.plan.micro_batch} x {row.plan.grad_accum} {checkpointing} "
        "activation checkpointing, "
        f"{row.plan.tokens_per_second:,.0f} {rate_name(fleet.search.job)}{keys}"
    )


def _edited(edit: Edit) -> str:
    name = edit.key.removeprefix(f"{ZERO}.")
    return f"without {name}" if edit.after is None else f"{name}: {json.dumps(edit.after)}"


def _changes(fleet: Fleet, plan: Candidate | None) -> list[dict[str, Any]]:
    return [] if plan is None else list(map(edit_mapping, edits(fleet.search, plan)))


def print_fleet(fleet: Fleet) -> None:
    """Print the sizes as JSON."""
    print_document(fleet_mapping(fleet))


def fleet_mapping(fleet: Fleet) -> dict[str, Any]:
    """The sizes as JSON; ``changes`` of those that the table shows, from the user's config."""
    shown = {size.nodes for size in fleet.table}
    return {
        "schema_version": 1,
        "verdict": fleet.verdict.value,
        "reasons": [reason_mapping(reason) for reason in fleet.reasons],
        "sizes": [
            {
                "nodes": size.nodes,
                "best": plan_mapping(size.best) if size.best else None,
                "days": fleet.days_of(size),
                "fits": sorted(size.by_strategy),
                "changes": _changes(fleet, size.best) if size.nodes in shown else [],
            }
            for size in fleet.sizes
        ],
        "fewest": [
            {
                "strategy": row.strategy.name,
                "plan": plan_mapping(row.plan) if row.plan else None,
                "reason": why(row.loss) if row.loss else "",
                "changes": _changes(fleet, row.plan),
            }
            for row in fleet.fewest
        ],
        "to_buy": [
            {
                "plan": plan_mapping(buy.plan),
                "host_bytes": buy.host_bytes,
                "nvme_bytes": buy.nvme_bytes,
            }
            for buy in fleet.to_buy
        ],
        "stops_helping": fleet.stops_helping,
        "measured": measured(fleet.search),
        "warnings": warnings_mapping(fleet.search),
        "fewest_of": fleet.fewest_of,
        "batch": {
            "is_free": fleet.is_free,
            "train_batch_size": fleet.search.batch.train_batch,
            "seq_len": fleet.search.seq_len if fleet.search.sweep else None,
        },
        "target": plan_mapping(fleet.target) if fleet.target else None,
        "stops_helping_at": "batch" if fleet.batch_ends else "gain",
        "curve": [point_mapping(point) for point in fleet.curve],
        "target_training": training_mapping(fleet.target_run) if fleet.target_run else None,
        "miss": None
        if fleet.miss is None
        else {
            **plan_mapping(fleet.miss.plan),
            "training": training_mapping(fleet.miss.training),
        },
    }
