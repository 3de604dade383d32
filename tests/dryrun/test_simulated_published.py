"""A published 4-GPU ZeRO-3 log of Qwen2.5-1.5B, line by line, without a GPU.

The log: LLaMA-Factory, 4 GPUs, bf16, torch AdamW, buckets of 1536 squared, accumulation 2, found in
a stored GitHub file (2026-01-27). ``MA`` is what torch had allocated when DeepSpeed printed the
line, ``Max_MA`` the most since the line before; both GiB.

The log names its DeepSpeed: 0.16.9. That one held other temporaries than 0.19.8 in two places, so
two maxima follow from its source rather than from a run of 0.19.8; where 0.16.9 is what is
installed, its run is compared and nothing else. LLaMA-Factory names no dtype at stage 3
(src/llamafactory/model/patcher.py), so every weight is made in fp32 and cast under zero.Init.
"""

import re
from dataclasses import replace
from importlib import metadata

import pytest
from support.simulated_jobs import request_for

from zero_sizer import models
from zero_sizer.dryrun import simulated
from zero_sizer.units import GIB

pytestmark = pytest.mark.slow

WRITTEN_BY = "0.16.9"
PUBLISHED = {  # line: (MA, Max_MA)
    "Stage 3 initialize beginning": (0.72, 2.02),
    "DeepSpeedZeRoOffload initialize [begin]": (0.72, 0.72),
    "DeepSpeedZeRoOffload initialize [end]": (0.72, 0.72),
    "Before creating fp16 partitions": (0.72, 0.72),
    "After creating fp16 partitions: 2": (0.72, 0.72),
    "Before creating fp32 partitions": (0.72, 0.72),
    "After creating fp32 partitions": (2.16, 2.88),
    "Before initializing optimizer states": (2.16, 2.16),
    "After initializing optimizer states": (2.16, 3.59),
    "After initializing ZeRO optimizer": (2.88, 3.75),
}
# DeepSpeed version: how it makes fp32 partitions, and gathers one parameter to hang a hook on it.
ORDERS = {
    # The partition is cloned in bf16, then cast (stage3.py:906); a parameter is gathered into a
    # flat tensor and copied into one of its shape (partition_parameters.py:1902 and :1952).
    "0.16.9": {"clone_bytes": 2, "copies": 2},
    # Cast, then cloned in fp32 (stage3.py:1160 and :1172); one flat tensor (:2142).
    "0.19.8": {"clone_bytes": 4, "copies": 1},
}
ZERO = {
    "stage": 3,
    "overlap_comm": False,
    "contiguous_gradients": True,
    "sub_group_size": 1_000_000_000,
    "reduce_bucket_size": 2359296,
    "stage3_prefetch_bucket_size": 2123366,
    "stage3_param_persistence_threshold": 15360,
    "stage3_max_live_parameters": 1_000_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
}


@pytest.fixture(scope="module")
def log():
    spec = models.load("qwen2.5-1.5b")
    assert spec.num_params == 1_543_714_304  # what the log says it trains
    request = request_for(ZERO, config={"optimizer": None, "gradient_accumulation_steps": 2})
    request = replace(
        request,
        hf_config=dict(spec.hf_config),
        seq_len=128,
        checkpointing=True,
        optimizer="adamw_torch",
        built_dtype="float32",
    )
    return simulated.run_request(request).log


@pytest.mark.parametrize("message", PUBLISHED)
def test_the_line_says_what_the_published_log_says(log, message):
    live, peak = _figures(log, message)
    if metadata.version("deepspeed") != WRITTEN_BY:
        peak = _followed(log, message, WRITTEN_BY, peak)
    assert (round(live, 2), round(peak, 2)) == PUBLISHED[message]


@pytest.mark.parametrize(
    "message", ["After creating fp32 partitions", "After initializing ZeRO optimizer"]
)
def test_the_installed_versions_maxima_follow_from_its_own_order(log, message):
    _, peak = _figures(log, message)
    version = metadata.version("deepspeed")
    if version not in ORDERS:
        pytest.skip(f"the order of DeepSpeed {version} was not read")
    assert round(_followed(log, message, version, None), 2) == peak


def _figures(log, message):
    """MA, and the most since the published line before: only those start the maximum anew."""
    lines = list(PUBLISHED)
    place = lines.index(message)
    first = log.index(lines[place - 1]) + 2 if place else 0
    found = [
        re.match(r"MA ([\d.]+) GB +Max_MA ([\d.]+) GB", line)
        for line in log[first : log.index(message) + 2]
    ]
    pairs = [(float(match[1]), float(match[2])) for match in found if match]
    return pairs[-1][0], max(peak for _, peak in pairs)


def _followed(log, message, version, otherwise):
    """The maximum before a line where it depends on the version; ``otherwise`` elsewhere."""
    order = ORDERS[version]
    begun = [re.match(r"\[Begin\] Initialize .* num_elems: (\d+)", line) for line in log]
    groups = [int(match[1]) for match in begun if match]  # of this rank
    bf16, fp32 = 2 * sum(groups), 4 * sum(groups)
    if message == "After creating fp32 partitions":
        done = [4 * sum(groups[:index]) for index in range(len(groups))]
        made = zip(done, groups, strict=True)
        return max(bf16 + own + (4 + order["clone_bytes"]) * numel for own, numel in made) / GIB
    if message == "After initializing ZeRO optimizer":
        # Held by then: both copies of the weights, bf16 gradients, the reduce bucket.
        held = bf16 + fp32 + bf16 + 2 * ZERO["reduce_bucket_size"]
        largest = max(tensor.numel for tensor in models.load("qwen2.5-1.5b").parameters)
        return (held + order["copies"] * 2 * largest) / GIB
    return otherwise
