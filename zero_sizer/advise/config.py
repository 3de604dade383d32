"""From a chosen plan to a DeepSpeed config: the user's keys stay, the chosen ones are written."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from zero_sizer.advise.ladder import Tuning, with_keys
from zero_sizer.advise.strategy import Strategy
from zero_sizer.config import batch
from zero_sizer.config.auto import PRECISIONS
from zero_sizer.hardware import catalog
from zero_sizer.job.read import Job

_HAS_BF16 = (8, 0)  # compute capability, from Ampere on
_TAKES_FP16 = (7, 0)  # accelerator/cuda_accelerator.py, is_fp16_supported
ASSUMED_PRECISION = "(assumed: --precision)"
ZERO = "zero_optimization"
_OURS = (
    "stage",
    "offload_optimizer",
    "offload_param",
    "cpu_offload",
    "cpu_offload_param",
    "cpu_offload_use_pin_memory",
    "zero_hpz_partition_size",
)


def usual_precision(gpu: str | None) -> str:
    """bf16, or fp16 on a GPU that has no units for it, or fp32 where DeepSpeed takes no fp16.

    Raises:
        InputError: no such GPU.
    """
    capability = catalog.find(gpu).compute_capability if gpu else None
    if capability is None or capability >= _HAS_BF16:
        return "bf16"
    return "fp16" if capability >= _TAKES_FP16 else "fp32"


def with_usual_precision(job: Job) -> Job:
    """The job in the GPU's usual precision, where its config leaves that to the Trainer."""
    values = [job.document.get(path) for path in PRECISIONS]
    if job.workload.precision is not None or "auto" not in values or True in values:
        return job
    gpu = job.cluster.gpu
    usual = usual_precision(gpu.name if gpu is not None else None)
    origins = {**job.workload.origins, "precision": ASSUMED_PRECISION}
    return replace(job, workload=replace(job.workload, precision=usual, origins=origins))


def default_config(precision: str | None = None) -> dict[str, Any]:
    """Config that stands in for one that was not given: AdamW, bf16 unless told otherwise."""
    sections = {"fp16": {"fp16": {"enabled": True}}, "fp32": {}}
    return {
        **deepcopy(sections.get(precision or "", {"bf16": {"enabled": True}})),
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.01}},
        "gradient_clipping": 1.0,
    }


def strategy_config(values: Mapping[str, Any], strategy: Strategy) -> dict[str, Any]:
    """The user's config turned to ``strategy``; what it says of buffers stays."""
    config = {key: deepcopy(value) for key, value in values.items() if key not in batch.KEYS}
    before = values.get(ZERO)
    kept = {
        key: deepcopy(value)
        for key, value in (before.items() if isinstance(before, Mapping) else ())
        if key not in _OURS
    }
    if strategy.stage < 3:
        kept = {key: value for key, value in kept.items() if not key.startswith("stage3_")}
    zero: dict[str, Any] = deepcopy(dict(strategy.zero))
    for section in ("offload_optimizer", "offload_param"):
        given = before.get(section) if isinstance(before, Mapping) else None
        if isinstance(given, Mapping) and section in zero:  # the user's path, buffers and pinning
            zero[section] = {**zero[section], **deepcopy(given), "device": zero[section]["device"]}
    if strategy.stage and "overlap_comm" not in kept:
        zero["overlap_comm"] = True
    if strategy.stage == 3 and _is_muon(values):  # it does without (stage3.py:360-363)
        zero["reduce_scatter"] = False
    config[ZERO] = {**kept, **zero}
    return config


def _is_muon(values: Mapping[str, Any]) -> bool:
    optimizer = values.get("optimizer")
    return isinstance(optimizer, Mapping) and str(optimizer.get("type")).lower() == "muon"


def chosen_config(
    values: Mapping[str, Any],
    strategy: Strategy,
    setting: Tuning,
    *,
    micro_batch: int,
    grad_accum: int,
) -> dict[str, Any]:
    """The complete config of one candidate."""
    config = strategy_config(values, strategy)
    config[ZERO] = with_keys(config[ZERO], setting)
    return {
        batch.MICRO: micro_batch,
        batch.ACCUM: grad_accum,
        **config,
    }
