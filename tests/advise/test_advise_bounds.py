"""Bounds that decide whether a plan fits: never wrong, whatever the number of ranks."""

import random

import pytest
from support.advise_jobs import job_on

from zero_sizer.advise.choose import Options, search_of
from zero_sizer.hardware.device import Device


def drawn(model, count, seed):
    """Sweep, candidate and number of ranks of it, on up to 40 nodes of 6 GPUs."""
    draw = random.Random(seed)
    search = search_of(job_on(model, "h100-80gb", gpus=6, nvme="7TB", seq_len=256), Options())
    at_stage_3 = [s for s in search.usable if s.stage == 3]
    for _ in range(count):
        strategy = draw.choice(at_stage_3)
        numbers = {
            "micro_batch": draw.choice((1, 2, 7)),
            "grad_accum": draw.choice((1, 3)),
            "checkpointing": draw.random() < 0.5,
            **draw.choice(search.ladders[strategy.name].every).values,
        }
        for number in draw.sample(range(strategy.needs_nodes, 41), 6):
            yield (
                search.sweep,
                search.sweep.values(strategy.name, dp_world_size=6 * number, **numbers),
            )


@pytest.mark.parametrize(
    ("model", "count"),
    [("gpt2", 8), *(pytest.param(m, 40, marks=pytest.mark.slow) for m in ("gpt2", "t5-3b"))],
)
def test_bounds_hold(model, count):
    """Against the whole evaluation, with tensors that the ranks divide and others."""
    decided = 0
    for sweep, values in drawn(model, count, seed=7):
        between = sweep.between(values)
        if between is None:
            continue
        decided += 1
        least, most = between
        found = sweep.uses(values)
        for device in Device:
            assert least[device].num_bytes <= found[device].num_bytes <= most[device].num_bytes
        gpu = Device.GPU
        low, exact, high = (of[gpu].num_bytes + of[gpu].room for of in (least, found, most))
        assert low <= exact <= high
    assert decided > count


@pytest.mark.parametrize(
    ("model", "count"), [("gpt2", 10), pytest.param("mixtral-8x7b", 25, marks=pytest.mark.slow)]
)
def test_activations_alone_are_a_lower_bound(model, count):
    """Of the GPU at any stage; host and NVMe are what the whole evaluation says.

    What is said of any number of ranks and any buffers is below that.
    """
    draw, gpu = random.Random(3), Device.GPU
    search = search_of(job_on(model, "h100-80gb", gpus=6, nvme="7TB", seq_len=256), Options())
    for strategy in search.usable:
        for _ in range(count):
            values = search.sweep.values(
                strategy.name,
                dp_world_size=6 * draw.randint(strategy.needs_nodes, 40),
                micro_batch=draw.choice((1, 2, 7, 40)),
                grad_accum=draw.choice((1, 3)),
                checkpointing=draw.random() < 0.5,
                **draw.choice(search.ladders[strategy.name].every).values,
            )
            least, found = search.sweep.without_zero(values), search.sweep.uses(values)
            of_any = search.sweep.unchanging(values)
            assert all(of_any[d].num_bytes <= least[d].num_bytes for d in Device)
            assert of_any[gpu].num_bytes
            assert least[gpu].num_bytes <= found[gpu].num_bytes
            low, exact = (of[gpu].num_bytes + of[gpu].room for of in (least, found))
            assert low <= exact
            assert all(least[d] == found[d] for d in Device if d is not gpu)


@pytest.mark.slow
def test_what_was_worked_out_needs_no_bounds():
    for sweep, values in drawn("gpt2", 2, seed=8):
        sweep.uses(values)
        assert sweep.between(values) is None
