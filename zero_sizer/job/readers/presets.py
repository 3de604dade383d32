"""DeepSpeed configs that come with a tool, for files that name them and were copied elsewhere.

hiyouga/LLaMA-Factory at ff6d4d1, ``examples/deepspeed``; axolotl-ai-cloud/axolotl at 067b021,
``deepspeed_configs``.
"""

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
_BATCH = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
_AUTO = {"enabled": "auto"}
_SCALE = {"loss_scale": 0, "loss_scale_window": 1000, "hysteresis": 2, "min_loss_scale": 1}
_PINNED = {"device": "cpu", "pin_memory": True}


def _factory(zero: Config, **offload: Config) -> Config:
    return {
        **_BATCH,
        "zero_allow_untested_optimizer": True,
        "fp16": {**_AUTO, **_SCALE, "initial_scale_power": 16},
        "bf16": _AUTO,
        "zero_optimization": {**zero, **offload},
    }


def _buckets(stage: int) -> Config:
    return {
        "stage": stage,
        "allgather_partitions": True,
        "allgather_bucket_size": 5e8,
        "overlap_comm": False,
        "reduce_scatter": True,
        "reduce_bucket_size": 5e8,
        "contiguous_gradients": True,
        "round_robin_gradients": True,
    }


_STAGE3 = {
    "stage": 3,
    "overlap_comm": False,
    "contiguous_gradients": True,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": True,
}
FACTORY: Mapping[str, Config] = {
    "ds_z0_config.json": _factory(_buckets(0)),
    "ds_z2_config.json": _factory(_buckets(2)),
    "ds_z2_offload_config.json": _factory(_buckets(2), offload_optimizer=_PINNED),
    "ds_z3_config.json": _factory(_STAGE3),
    "ds_z3_offload_config.json": _factory(
        _STAGE3, offload_optimizer=_PINNED, offload_param=_PINNED
    ),
}
"""By the name of the file."""


def _axolotl(zero: Config, bf16: Config = _AUTO, **more: Any) -> Config:
    fp16 = {"fp16": {**_AUTO, **_SCALE, "auto_cast": False, "initial_scale_power": 32}}
    given = {**_BATCH, "zero_optimization": zero, "bf16": bf16, **more}
    return given if bf16 is not _AUTO else {**given, **fp16}


_OVERLAP = {"overlap_comm": True}
_SECOND = {
    **_OVERLAP,
    "stage": 2,
    "offload_optimizer": {"device": "cpu"},
    "contiguous_gradients": True,
}
_THIRD = {
    **_OVERLAP,
    "stage": 3,
    "contiguous_gradients": True,
    "sub_group_size": 0,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "max_live_parameters": 0,
    "max_reuse_distance": 0,
    "gather_16bit_weights_on_model_save": True,
}
_BF16 = {"enabled": True}
_ITS_OWN = {"zero_force_ds_cpu_optimizer": False, "zero_allow_untested_optimizer": True}
AXOLOTL: Mapping[str, Config] = {
    "zero1.json": _axolotl({**_OVERLAP, "stage": 1}),
    "zero2.json": _axolotl(_SECOND),
    "zero3.json": _axolotl(_THIRD),
    "zero3_bf16.json": _axolotl(_THIRD, _BF16),
    "zero3_bf16_cpuoffload_all.json": _axolotl(
        {**_THIRD, "offload_optimizer": _PINNED, "offload_param": _PINNED}, _BF16, **_ITS_OWN
    ),
    "zero3_bf16_cpuoffload_params.json": _axolotl(
        {**_THIRD, "offload_param": _PINNED}, _BF16, **_ITS_OWN
    ),
}
"""By the name of the file; those that compile are left out, as torch.compile is not modelled."""
