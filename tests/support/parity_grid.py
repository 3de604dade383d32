"""Configs on which the ledger is held against real DeepSpeed ranks."""

from collections.abc import Iterator
from typing import Any

# Odd sizes everywhere: nothing divides by 2, 3 or 4, so every padding rule shows.
SHAPES: dict[str, tuple[int, ...]] = {
    "embed.weight": (101, 13),
    "layers.0.a.weight": (37, 13),
    "layers.0.a.bias": (37,),
    "layers.0.b.weight": (53, 29),
    "layers.0.n.weight": (7,),
    "layers.1.a.weight": (37, 13),
    "layers.1.a.bias": (37,),
    "layers.1.b.weight": (53, 29),
    "layers.1.n.weight": (7,),
    "norm.weight": (13,),
    "head.weight": (101, 13),
}
CPU = {"device": "cpu"}


def config(stage: int, precision: str, optimizer: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A config; ``zero`` among ``more`` adds to zero_optimization, the rest to the top level."""
    zero = {"reduce_bucket_size": 3000, "stage3_param_persistence_threshold": 20}
    written: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "optimizer": optimizer,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, **zero, **more.pop("zero", {})},
        **more,
    }
    if precision != "fp32":
        written[precision] = {"enabled": True}
    if precision == "fp16":
        written["fp16"]["loss_scale"] = 1.0
    return written


def adam(**params: Any) -> dict[str, Any]:
    return {"type": "Adam", "params": {"lr": 1e-4, **params}}


def breadth() -> Iterator[tuple[str, dict[str, Any]]]:
    """Optimizers, accumulation dtypes and layout keys."""
    for stage in (0, 1, 2, 3):
        for optimizer in ("Lion", "Adagrad", "SGD", "Muon"):
            params = {"lr": 1e-4, **({"momentum": 0.9} if optimizer in ("SGD", "Muon") else {})}
            zero = {"reduce_scatter": False} if optimizer == "Muon" else {}
            written = {"type": optimizer, "params": params}
            yield f"stage {stage}, {optimizer}", config(stage, "bf16", written, zero=zero)
        yield f"stage {stage}, torch Adam", config(stage, "bf16", adam(torch_adam=True))
        yield f"stage {stage}, torch Adam, fp32", config(stage, "fp32", adam(torch_adam=True))
    for stage in (1, 2, 3):
        for name, zero in {
            "no offload": {},
            "pageable offload": {"offload_optimizer": {"device": "cpu", "pin_memory": False}},
        }.items():
            for accumulation in (1, 2):
                yield (
                    f"stage {stage}, bf16 accumulated in fp32, {name}, {accumulation}",
                    config(
                        stage,
                        "bf16",
                        adam(),
                        zero=zero,
                        data_types={"grad_accum_dtype": "fp32"},
                        gradient_accumulation_steps=accumulation,
                    ),
                )
        for zero in (
            {"parameter_alignment": True},
            {"round_robin_gradients": True},
            {"sub_group_size": 500},
            {"overlap_comm": True},
            {"contiguous_gradients": False},
            {"sub_group_size": 500, "offload_optimizer": {"device": "cpu", "ratio": 0.5}}
            if stage == 3
            else {"parameter_alignment": True, "offload_optimizer": CPU},
        ):
            yield f"stage {stage}, {zero}", config(stage, "bf16", adam(), zero=zero)
        low = {"enabled": True, "bf16_master_weights_and_grads": True}
        for states in (False, True):
            bf16 = {**low, "bf16_optimizer_states": states}
            written = config(stage, "fp32", adam(), zero={"offload_optimizer": CPU})
            yield f"stage {stage}, {bf16}", {**written, "bf16": bf16}
