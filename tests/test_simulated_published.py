"""A published 4-GPU ZeRO-3 log of Qwen2.5-1.5B, line by line, without a GPU.

The log: LLaMA-Factory, 4 GPUs, bf16, torch AdamW, buckets of 1536 squared, accumulation 2, found in
a stored GitHub file (2026-01-27). ``MA`` is what torch had allocated when DeepSpeed printed the
line, ``Max_MA`` the most since the line before; both GiB. Where the version that wrote the log
held other temporaries than 0.19.8 (its fp32 partitions were not cloned while they were made, and
loading a checkpoint came first), only ``MA`` is compared.
"""

import re
from dataclasses import replace

import pytest
from simulated_jobs import request_for

from zero_sizer import models
from zero_sizer.witnesses import simulated

pytestmark = pytest.mark.slow

PUBLISHED = {  # line: (MA, Max_MA or None)
    "Stage 3 initialize beginning": (0.72, None),
    "DeepSpeedZeRoOffload initialize [end]": (0.72, 0.72),
    "After creating fp16 partitions: 2": (0.72, 0.72),
    "After creating fp32 partitions": (2.16, None),
    "Before initializing optimizer states": (2.16, 2.16),
    "After initializing optimizer states": (2.16, 3.59),
    "After initializing ZeRO optimizer": (2.88, None),
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
    )
    return simulated.run_request(request).log


def _figures(log, message):
    start = log.index(message)
    found = re.match(r"MA ([\d.]+) GB +Max_MA ([\d.]+) GB", log[start + 1])
    assert found is not None
    return float(found.group(1)), float(found.group(2))


@pytest.mark.parametrize("message", PUBLISHED)
def test_the_line_says_what_the_published_log_says(log, message):
    live, peak = PUBLISHED[message]
    found_live, found_peak = _figures(log, message)
    assert found_live == live
    if peak is not None:
        # DeepSpeed 0.19.8 prints two more lines on the way, each of which starts the maximum anew.
        first = log.index(message)
        if message == "After initializing optimizer states":
            found_peak = max(found_peak, *(_peaks(log[first - 12 : first])))
        assert found_peak == peak


def _peaks(lines):
    return [float(f) for line in lines for f in re.findall(r"Max_MA ([\d.]+) GB", line)]
