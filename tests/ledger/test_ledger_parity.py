"""Optimizers and layout keys: the ledger against real DeepSpeed ranks, to the byte on every rank.

Each task is trained for two steps by the real engine on real ranks (CPU, gloo, DeepSpeed's own
launcher). Live tensors are counted after init and after the step by category and place; the ledger
must say the same numbers for the same rank. ``other`` (the batch, the loss) and activations are
not model states. Stages, precisions and offloads are in test_witness_parity.
"""

from collections import Counter
from dataclasses import replace

import pytest
from support.parity_grid import SHAPES, breadth
from support.plans import ledger_of, make_job, make_plan, spec_of
from support.warm import ranks_forked

from zero_sizer.ledger.moments import Moment

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SPEC = spec_of(SHAPES)
NOT_STATES = {"activations", "other", "runtime"}


def _predicted(config, spec, ranks, rank, moment):
    sums = Counter()
    for allocation in ledger_of(make_plan(config, spec, ranks), rank):
        if moment in allocation.moments and allocation.category.value not in NOT_STATES:
            sums[allocation.category.value, allocation.device.value] += allocation.num_bytes
    return dict(sums)


def _measured(record):
    sums = Counter()
    for buffer in record.live:
        if buffer.category not in NOT_STATES:
            sums[buffer.category, buffer.device] += buffer.num_bytes
    return dict(sums)


def _by_category(sums):
    totals = Counter()
    for (category, _), num_bytes in sums.items():
        totals[category] += num_bytes
    return dict(totals)


def _differences(grid, spec, ranks):
    from zero_sizer.dryrun import launched
    from zero_sizer.dryrun.from_job import rank_task

    tasks = [rank_task(make_job(config, spec, ranks, seq_len=4), steps=2) for _, config in grid]
    tasks = [replace(task, peak=False) for task in tasks]
    compared, different = 0, []
    with ranks_forked():
        results = launched.run_tasks(tasks, ranks=ranks)
    for (name, config), result in zip(grid, results, strict=True):
        if isinstance(result, str):
            different.append(f"{name}: {result}")
            continue
        for record in result:
            for phase, moment in (("init", Moment.READY), ("step", Moment.DONE)):
                measured = _measured(record.last(phase))
                predicted = _predicted(config, spec, ranks, record.rank, moment)
                if "ratio" in name:  # a CPU rank cannot show which sub-groups sit on a GPU
                    measured, predicted = _by_category(measured), _by_category(predicted)
                compared += 1
                if measured != predicted:
                    different.append(
                        f"{name}, rank {record.rank}, {moment.value}: "
                        f"predicted {predicted}, measured {measured}"
                    )
    return compared, different


def test_optimizers_and_layout_keys_equal_real_ranks_to_the_byte():
    _, different = _differences(list(breadth()), SPEC, 3)
    assert different == []
