"""Error-level findings against DeepSpeed's own engine, on the example configs."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from checks.test_config_checks import INVALID, VALID, findings_of
from support.deepspeed_oracle import judge

from zero_sizer.config.document import Document, from_mapping, load
from zero_sizer.findings import Finding, Severity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
pytest.importorskip("deepspeed")

SAMPLES = 60
SEVERAL_RANKS, CUDA = "needs several ranks", "needs an NVIDIA GPU"
ON_GPU = "a CPU optimizer objects to tensors of a GPU"
ASYNC_IO = "reads and writes through the compiled async_io"
# What one CPU rank without compiled kernels cannot show.
NOT_SHOWN = {
    "hpz-world-size/three_of_eight": SEVERAL_RANKS,
    "tensor-parallel-world-size/three_of_eight": SEVERAL_RANKS,
    "sequence-parallel-world-size/six_of_eight": SEVERAL_RANKS,
    "tensor-parallel-size/two_sizes": SEVERAL_RANKS,  # simulated: test_checks_shapes
    "not-modelled/sequence_parallel": SEVERAL_RANKS,
    "not-modelled/tensor_parallel": SEVERAL_RANKS,
    "not-modelled/super_offload": CUDA,
    "super-offload-device/none": CUDA,
    "offload-stage-0/bf16": ON_GPU,
    "offload-stage-0/fp32": ON_GPU,  # simulated: AssertionError in the first step
    "offload-ignored/bf16_optimizer": ON_GPU,  # simulated: the same
    "nvme-buffers/pipelined": ASYNC_IO,
    "nvme-unused/default_max_in_cpu": ASYNC_IO,
    "nvme-buffer-count/optimizer_zero": ASYNC_IO,  # simulated: test_checks_shapes
    "nvme-buffer-count/optimizer_three": ASYNC_IO,
    "nvme-buffer-count/parameters_zero": ASYNC_IO,
    "nvme-buffer-size/small": ASYNC_IO,
    "hpz-nvme/offload_param": ASYNC_IO,  # simulated: RuntimeError
    "valid/zero3_nvme": ASYNC_IO,
}


def errors_of(document: Document) -> list[Finding]:
    return [f for f in findings_of(document) if f.severity is Severity.ERROR]


def exceptions(found: list[Finding]) -> set[str]:
    return {re.split(r"[:,]| in the| after the", f.message)[0] for f in found}


def skip_unshown(path: Path) -> None:
    reason = NOT_SHOWN.get(f"{path.parent.name}/{path.stem}")
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def outcomes() -> dict[Path | int, dict[str, str]]:
    """What DeepSpeed says to every example and sample; the valid examples train two steps."""
    jobs = [{"config": read(path), "steps": steps_of(path)} for path in INVALID]
    jobs += [{"config": read(path), "steps": 2} for path in VALID]
    jobs += [{"config": sampled(seed)} for seed in range(SAMPLES)]
    return dict(zip([*INVALID, *VALID, *range(SAMPLES)], judge(jobs), strict=True))


def steps_of(path: Path) -> int:
    """Steps until the engine says what it has to say; none where that is in its making."""
    in_step = re.compile(r"(in|after) the first step")
    return 2 * any(in_step.search(finding.message) for finding in errors_of(load(path)))


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_engine_raises_what_the_finding_says(path, outcomes):
    skip_unshown(path)
    found = errors_of(load(path))
    outcome = outcomes[path]
    if not found:
        assert outcome["type"] == "", outcome
    else:
        assert outcome["type"] in exceptions(found), outcome


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_engine_trains_on_valid_examples(path, outcomes):
    skip_unshown(path)
    assert outcomes[path]["type"] == "", outcomes[path]


SPACE = {
    "zero_optimization.stage": [0, 1, 2, 3],
    "zero_optimization.offload_optimizer.device": ["none", "cpu"],
    "zero_optimization.offload_optimizer.ratio": [1.0, 1.0, 0.5],
    "zero_optimization.offload_param.device": ["none", "cpu"],
    "zero_optimization.reduce_scatter": [True, False],
    "zero_optimization.overlap_comm": [True, False],
    "zero_optimization.compute_grad_norm": [True, True, False],
    "zero_optimization.allgather_bucket_size": [10**6, 10**6, 10**6 + 1],
    "optimizer.type": ["AdamW", "Adam", "Lion", "Adagrad", "SGD", "Lamb", "Muon", "NAdam", "Adma"],
    "optimizer.params": [{"lr": 1e-4}, {"lr": 1e-4}, {"weight_decay": 0.1}, {"betas": [0.9, 0.9]}],
    "scheduler.type": ["WarmupLR", "WarmupDecayLR", "StepLR", "WarmUp"],
    "scheduler.params": [{}, {"warmup_num_steps": 5}, {"total_num_steps": 9}],
    "bf16.enabled": [True, False],
    "bf16.bf16_master_weights_and_grads": [False, False, True],
    "bf16.bf16_optimizer_states": [False, True],
    "fp16.enabled": [False, True],
    "fp16.loss_scale": [0, 128],
    "data_types.grad_accum_dtype": ["fp32", "bf16", "fp16"],
    "gradient_clipping": [0, 1.0],
    "gradient_allreduce_op": ["mean", "sum"],
    "prescale_gradients": [False, True],
    "zero_allow_untested_optimizer": [True, False],
    "managed_gradient_accumulation": [True, True, False],
    "torch_autocast": [{"enabled": True, "dtype": "bfloat16"}],
}
ALWAYS = ("zero_optimization.stage", "optimizer.type", "bf16.enabled")
ONLY_ON_GPU = {"offload-stage-0"}


def sampled(seed: int) -> dict[str, Any]:
    """A config with a few keys of the space."""
    rng = random.Random(seed)
    config: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1}
    chosen = {*ALWAYS, *rng.sample(sorted(SPACE), 5)}
    if any(key.startswith("scheduler") for key in chosen):
        chosen |= {"scheduler.type", "scheduler.params"}
    for key in sorted(chosen):
        *path, name = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[name] = rng.choice(SPACE[key])
    scheduler = config.get("scheduler", {})
    if scheduler.get("type") == "StepLR":  # arguments of torch's own classes are not checked
        scheduler["params"] = {"step_size": 5}
    return config


def test_engine_and_findings_agree_on_sampled_configs(outcomes):
    wrong = []
    for seed in range(SAMPLES):
        config, outcome = sampled(seed), outcomes[seed]
        found = [f for f in errors_of(from_mapping(config)) if f.code not in ONLY_ON_GPU]
        agree = outcome["type"] in exceptions(found) if found else outcome["type"] == ""
        if not agree:
            wrong.append((config, outcome, [f.message for f in found]))
    assert wrong == [], "\n".join(map(str, wrong))
