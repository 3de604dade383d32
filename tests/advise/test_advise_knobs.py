"""Every knob is tried before nothing is said to fit, and the answer holds against a random grid."""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.advise_jobs import job_on

from zero_sizer import sizing
from zero_sizer.advise.choose import Options, choose
from zero_sizer.sizing import Verdict

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import search as benchmark

SDPA = {"attention": "sdpa", "seq_len": 2048}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "gpu", "flags"),
    [
        ("mistral-7b", "rtx-3090", {"gpus": 4, "host_memory": "128GiB"}),
        ("llama-2-13b", "rtx-4090", {"gpus": 1, "host_memory": "64GiB", "nvme": "1TB"}),
        ("llama-3-8b", "a100-40gb", {"gpus": 1, "host_memory": "32GiB", "nvme": "1TB"}),
    ],
)
def test_pinning_sub_groups_and_shares_make_jobs_fit(model, gpu, flags):
    """None of the three fits on the host with pinned buffers, all of them, of whole sub-groups."""
    choice = choose(job_on(model, gpu, **{**SDPA, **flags}))
    assert choice.winner is not None
    job = choice.search.job_of(choice.winner)
    assert sizing.size(job).verdict is Verdict.FITS
    host_keys = {"offload_optimizer.pin_memory", "offload_optimizer.ratio", "sub_group_size"}
    assert host_keys & set(choice.winner.setting.keys)
    assert not _fits_with_whole_pinned_groups(choice)


def _fits_with_whole_pinned_groups(choice):
    winner = choice.winner
    kept = {k: v for k, v in winner.setting.keys.items() if "bucket" in k or "stage3" in k}
    plain = replace(winner, setting=benchmark.setting(kept))
    return choice.search.fits(plain)


def test_a_gradient_larger_than_the_bucket_stays():
    """A bucket of 1e8 holds Mistral's largest tensor at stage 1 no worse than one of 2e7."""
    flags = {"gpus": 1, "nodes": 2, "host_memory": "256GiB", "seq_len": 512}
    choice = choose(job_on("mistral-7b", "l4", **flags), Options(train_batch=2))
    fitting = {plan.strategy.name for plan in choice.ranked}
    assert "ZeRO-1, optimizer on host" in fitting


@pytest.mark.slow
def test_micro_batches_are_not_only_powers_of_two():
    taken = set()
    for length in (512, 640, 768, 896):
        choice = choose(job_on("llama-3.2-3b", "a100-40gb", seq_len=length))
        taken.add(choice.winner.micro_batch)
    assert any(size & (size - 1) for size in taken)


@pytest.mark.slow
def test_a_free_batch_is_one_batch_for_all():
    """Plans without accumulation would compete at different batches."""
    free = choose(job_on("qwen2.5-1.5b", "rtx-3090", nodes=2, gpus=4, host_memory="256GiB"))
    assert free.is_free
    batch = free.winner.train_batch
    held = choose(
        job_on("qwen2.5-1.5b", "rtx-3090", nodes=2, gpus=4, host_memory="256GiB"),
        Options(train_batch=batch),
    )
    assert held.winner.seconds_per_token == free.winner.seconds_per_token
    assert all(plan.train_batch == batch for plan in held.ranked)


@pytest.mark.slow
def test_where_nothing_fits_other_jobs_are_offered_with_the_least_that_is_needed():
    choice = choose(job_on("llama-3.2-3b", "t4", gpus=1, host_memory="16GiB", **SDPA))
    assert choice.winner is None
    names = [other.name for other, _ in choice.others]
    assert "QLoRA" in names
    for other, plan in choice.others:
        search = choose(other.job).search
        assert search.fits(plan), other.name
    for loss in choice.losses:
        if loss.closest is not None:
            for shortfall in loss.shortfalls:
                assert loss.least[shortfall.device] <= shortfall.need_bytes


def test_a_fused_loss_is_chosen_where_nothing_fits_without():
    """Whole logits of 128k words decide, and Liger's loss is the same training."""
    flags = {"gpus": 1, "host_memory": "256GiB", "seq_len": 32768}
    choice = choose(job_on("llama-3.2-1b", "a10g-24gb", **flags))
    assert choice.winner is not None
    assert choice.flags[0] in ("--loss", "--checkpointing-how")
    assert sizing.size(choice.search.job_of(choice.winner)).verdict is Verdict.FITS


def _against_the_grid(seed, count, settings):
    outcome, draw = benchmark.Outcome(), random.Random(seed)
    for _, problem in zip(range(count), benchmark.problems(seed), strict=False):
        benchmark.compare(problem, outcome, draw, settings)
    assert not outcome.failures
    return outcome


@pytest.mark.slow
def test_nothing_of_a_random_grid_is_better():
    """A slice of ``benchmarks/search.py``."""
    outcome = _against_the_grid(seed=41, count=2, settings=6)
    assert outcome.counts["fastest"] + outcome.counts["nothing fits"] == 2
