"""Memory that a loop over configs keeps: what a few of them need, however many there are."""

import gc
import tracemalloc
from typing import Any

import pytest

import zero_sizer
from zero_sizer.api.results import CheckResult
from zero_sizer.util import caches


def config(number: int) -> dict[str, Any]:
    zero = {"stage": 2 + number % 2, "reduce_bucket_size": 10_000_000 + 10_007 * number}
    return {"bf16": {"enabled": True}, "zero_optimization": zero}


def checked(number: int, **more: Any) -> CheckResult:
    cluster = {"gpu": "a100-40gb", "gpus_per_node": 2 + number % 5}
    return zero_sizer.check(config(number), model="gpt2", **cluster, **more)


def kept_after(numbers: range) -> int:
    """Bytes that are there after so many more configs."""
    for number in numbers:
        assert checked(number).devices["gpu"].peak_bytes
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_loop_over_configs_keeps_no_more_after_34_than_after_14():
    tracemalloc.start()
    try:
        before = kept_after(range(14))
        assert kept_after(range(14, 34)) - before < 2**20
    finally:
        tracemalloc.stop()


def test_no_large_cache_takes_more_along_than_it_says():
    for number in range(60, 62 + caches.MOST):
        checked(number)
    held = [kept.cache_info().currsize for kept in caches._large]
    assert 0 < max(held) <= caches.MOST


@pytest.mark.parametrize("said", ["r=8,targets=all-linear", None])
def test_equal_models_are_one_object(said: str | None):
    """What is worked out of a model is kept by the object: a loop would keep it once a config."""
    more = {"adapter": said} if said else {"freeze": ["*.embed_tokens.*"]}
    first, second = (checked(number, **more)._answer.sizing.job.model for number in (1, 2))
    assert first is second
    assert checked(1)._answer.sizing.job.model is not first
