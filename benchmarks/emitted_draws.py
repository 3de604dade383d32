"""Questions to ``choose`` as users ask them, for ``benchmarks/emitted.py``."""

import random
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODELS = (
    "gpt2", "opt-125m", "smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b", "qwen2.5-1.5b",
    "llama-3.2-3b", "mistral-7b", "qwen2.5-7b", "llama-3-8b", "llama-2-13b",
)  # fmt: skip
GPUS = ("t4", "rtx-3090", "l4", "v100-32gb", "a100-40gb", "a100-80gb", "h100-80gb")
HAVE_BF16 = ("rtx-3090", "l4", "a100-40gb", "a100-80gb", "h100-80gb")
_OPTIMIZER = {"type": "AdamW", "params": {"lr": 3e-5, "betas": [0.9, 0.95], "weight_decay": 0.1}}
_AUTO = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")


def configs(precision: str) -> Iterator[Mapping[str, Any] | None]:
    """Configs of users: none, the Trainer's with "auto", DeepSpeed's own with much in it."""
    yield None
    yield {
        precision: {"enabled": "auto"},
        "optimizer": {"type": "AdamW", "params": _AUTO},
        "scheduler": {
            "type": "WarmupLR",
            "params": dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps"), "auto"),
        },
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "steps_per_print": 2000,
        "wall_clock_breakdown": False,
    }
    yield {
        precision: {"enabled": True},
        "optimizer": _OPTIMIZER,
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 100}},
        "zero_optimization": {
            "stage": 2,
            "allgather_partitions": True,
            "allgather_bucket_size": 200_000_000,
            "overlap_comm": False,
            "reduce_bucket_size": 200_000_000,
            "round_robin_gradients": True,
            "offload_optimizer": {"device": "cpu", "pin_memory": False},
        },
        "gradient_clipping": 0.7,
        "prescale_gradients": False,
        "wall_clock_breakdown": True,
        "steps_per_print": 50,
    }
    yield {
        precision: {"enabled": True},
        "optimizer": _OPTIMIZER,
        "zero_optimization": {"stage": 1},
        "train_batch_size": 64,
        "gradient_accumulation_steps": 4,
    }


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One question to ``choose``."""

    flags: tuple[str, ...]
    config: Mapping[str, Any] | None

    @property
    def line(self) -> str:
        """The command line of it, without its config."""
        return shlex.join(self.flags)


def draws(seed: int) -> Iterator[Draw]:
    """Endless draws."""
    draw = random.Random(seed)
    while True:
        gpu = draw.choice(GPUS)
        precision = "bf16" if gpu in HAVE_BF16 else "fp16"
        nodes, gpus = draw.choice((1, 1, 2)), draw.choice((1, 1, 2, 4, 8))
        config = draw.choice(list(configs(precision)))
        flags = ["--model", draw.choice(MODELS), "--gpu", gpu]
        flags += ["--nodes", str(nodes), "--gpus-per-node", str(gpus)]
        flags += ["--host-memory", draw.choice(("64GiB", "256GiB", "1TiB"))]
        flags += ["--seq-len", draw.choice(("512", "1024", "2048")), "--attention", "sdpa"]
        flags += draw.choice(([], ["--nvme", "2TB"]))
        flags += draw.choice(([], [], ["--gpu-memory", "11GiB"], ["--gpu-memory", "15GiB"]))
        flags += draw.choice(([], [], ["--checkpointing"], ["--num-workers", "2"]))
        flags += draw.choice(([], [], [], ["--adapter", "r=16,targets=all-linear"]))
        if config is None or "train_batch_size" not in config:
            flags += draw.choice(([], ["--train-batch-size", str(16 * nodes * gpus)]))
        if config is not None and config.get("train_batch_size") == "auto":
            flags += ["--precision", precision]
        yield Draw(flags=tuple(flags), config=config)
