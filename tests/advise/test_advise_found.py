"""What choose finds and says where little fits: each is checked on the plan itself."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import zero_sizer
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.config import default_config
from zero_sizer.advise.search import Search
from zero_sizer.hardware.device import Device
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.job.values import pixels

ROOT = Path(__file__).parents[2]
CLUSTER: dict[str, Any] = {"gpu": "a100-80gb", "gpus_per_node": 8, "host_memory": "1TiB"}
SGD = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "SGD", "params": {"lr": 0.1}},
    "zero_optimization": {"stage": 2},
}


def with_gpu(search: Search, num_bytes: int) -> Search:
    """The search on GPUs of another size."""
    gpu = replace(search.limits.found[Device.GPU], num_bytes=num_bytes)
    found = {**search.limits.found, Device.GPU: gpu}
    return search.within(replace(search.limits, found=found)).thorough()


@pytest.mark.parametrize("name", ["ZeRO-3", "ZeRO-3, weights on host"])
@pytest.mark.parametrize("beyond", [0, 2**26, 2**30])
def test_a_gpu_as_large_as_the_most_frugal_plan_needs_is_enough(name: str, beyond: int):
    """Its peak is in backward; sub-groups decide what the step wants beside that."""
    flags = Flags(model="mixtral-8x7b", gpus_per_node=4, gpu="a100-40gb", host_memory="4TiB")
    job = read.without_config(default_config(), flags)
    search = search_of(job, Options(margin=0.0, train_batch=64))
    strategy = next(s for s in search.strategies if s.name == name)
    small = with_gpu(search, 1)
    need = min(1 + small.shortfalls(c)[0].over_bytes for c in small.smallest(strategy, 1))
    assert with_gpu(search, need + beyond).best(strategy, 1) is not None
    assert with_gpu(search, need - 1).best(strategy, 1) is None


def test_an_optimizer_that_zero_refuses_names_the_key_that_makes_it_run():
    found = zero_sizer.choose(SGD, model="llama-3-8b", **CLUSTER)
    refused = [row for row in found.to_dict()["do_not_fit"] if "SGD" in row["reason"]]
    assert refused
    assert all("zero_allow_untested_optimizer" in row["reason"] for row in refused)
    small = zero_sizer.choose(SGD, model="llama-3-8b", **{**CLUSTER, "gpu": "a100-40gb"})
    assert small.verdict == "does_not_fit"
    assert any("zero_allow_untested_optimizer" in reason.remedy for reason in small.reasons)
    allowed = {**SGD, "zero_allow_untested_optimizer": True}
    assert zero_sizer.choose(allowed, model="llama-3-8b", **CLUSTER).chosen["stage"] == 3


def test_the_optimizer_of_the_trainer_holds_without_a_config():
    found = zero_sizer.choose(model="gpt2", optim="sgd", **CLUSTER)
    assert "SGD" in str(found)
    assert "optimizer" not in found.config


def test_shares_and_sub_groups_of_the_chosen_plan_are_said():
    found = zero_sizer.choose(
        model="llama-2-13b", **{**CLUSTER, "gpu": "a100-40gb", "gpus_per_node": 4}
    )
    keys = found.chosen["buckets"]
    assert keys["offload_optimizer.ratio"] < 1
    assert f"(offload_optimizer.ratio: {keys['offload_optimizer.ratio']}" in str(found)


def test_other_jobs_say_what_they_leave_free():
    found = zero_sizer.choose(
        model="llama-2-7b", gpu="rtx-3090", gpus_per_node=1, host_memory="32GiB"
    )
    assert found.chosen is None
    assert "they leave free: 9% of gpu" in str(found)


def test_pixels_may_be_written_as_powers():
    assert pixels("5e5") == pixels(5e5) == 500_000
    for wrong in ("5e-1", "2.5", "1e99"):
        with pytest.raises(ValueError, match="write 602112"):
            pixels(wrong)


def test_the_page_on_python_names_attributes_that_answers_have():
    text = (ROOT / "docs" / "python.md").read_text()
    gpt2: dict[str, Any] = {"model": "gpt2", "gpu": "a100-40gb", "gpus_per_node": 2}
    answers = {
        "check": [zero_sizer.check({"bf16": {"enabled": True}}, **gpt2)],
        "choose": [
            zero_sizer.choose(**gpt2),
            zero_sizer.choose(**gpt2, largest="micro-batch"),
        ],
        "size": [zero_sizer.size(**gpt2, max_nodes=1)],
    }
    for question, found in answers.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{question}("))
        named = re.findall(r"`([a-z_]+)`", row.rsplit("|", 2)[1])
        assert "verdict" in named
        missing = [name for name in named if not any(hasattr(of, name) for of in found)]
        assert not missing, question
