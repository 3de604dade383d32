"""Blocks that are passed over against replaying each of them."""

import random
from dataclasses import replace

import pytest
from support.advise_jobs import job_on

from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.ladder import settings_of
from zero_sizer.timeline import compose, micro_steps, overlay
from zero_sizer.timeline.program import program_of
from zero_sizer.util.identity import Identity
from zero_sizer.zero import replay


def traces(model, count, seed, every=1):
    """Traces of stage-3 plans of a model, with their limits, and where their blocks begin.

    ``every``: of so many blocks one is checkpointed.
    """
    draw = random.Random(seed)
    search = search_of(job_on(model, "h100-80gb", nvme="7TB", seq_len=512), Options())
    strategies = [strategy for strategy in search.strategies if strategy.stage == 3]
    for _ in range(count):
        strategy = draw.choice(strategies)
        numbers = {
            **draw.choice(settings_of(strategy)).values,
            "dp_world_size": 16,
            "checkpointing": every > 1 or draw.random() < 0.5,
            "checkpointing_how": replace(search.job.workload.checkpointing_how, every=every),
            "grad_accum": draw.choice((1, 4)),
            "max_reuse_distance": draw.choice((0, 10**8, 10**9)),
        }
        plan = search.sweep.plan(search.sweep.values(strategy.name, **numbers))
        program = program_of(compose.places_of(plan))
        zeros = micro_steps.zeros_of(plan)
        first = (micro_steps.zero_at_first(plan),) if zeros[0].secondary.ranks else ()
        for zero in {*zeros, *first}:
            how = overlay.gathering_of(Identity(zero))
            yield how.trace(*program.visits), how.limits, program


# equal blocks, experts, blocks that alternate, and weights that are tied
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "every"),
    [
        ("llama-2-13b", 1),
        ("llama-2-13b", 3),
        ("mixtral-8x7b", 2),
        ("gemma-2-2b", 1),
        ("qwen2.5-0.5b", 4),
    ],
)
def test_passing_over_equal_blocks_changes_no_level(model, every):
    passed = 0
    for trace, limits, program in traces(model, 6, seed=3, every=every):
        short = replay.gathered(trace, limits, program.blocks)
        assert short == replay.gathered(trace, limits)
        forward = program.visits[1]
        made = replay.secondaries_made(trace, limits, forward, program.blocks)
        assert made == replay.secondaries_made(trace, limits, forward)
        steps = replay.Replay(trace, limits, program.blocks)
        while not steps.is_over:
            before = steps.number
            if steps.pass_over() is None:
                steps.visit()
            passed += steps.number - before > 1
    assert passed > 0
