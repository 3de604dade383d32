"""Small jobs for the simulated dry run, and the model they train."""

import json
from typing import Any

from support.plans import make_job

from zero_sizer import models
from zero_sizer.dryrun.simulated.request import Request

ADAMW = {"type": "AdamW", "params": {"lr": 1e-4}}
HOST = {"device": "cpu"}
AUTO = {  # what a Trainer fills in
    "bf16": {"enabled": "auto"},
    "gradient_accumulation_steps": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_clipping": "auto",
}
TINY_LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def tiny_llama(folder: Any, **fields: Any) -> Any:
    """The model above but for ``fields``, read from a config.json as a user's would be."""
    path = folder / "config.json"
    path.write_text(json.dumps({**TINY_LLAMA, **fields}))
    return models.load(str(path))


def config_of(zero: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A DeepSpeed config in bf16 with AdamW, unless ``more`` says otherwise (None removes)."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": ADAMW,
        "zero_optimization": zero,
        **more,
    }
    return {key: value for key, value in config.items() if value is not None}


def request_for(zero: dict[str, Any], *, ranks: int = 4, rank: int = 0, **more: Any) -> Request:
    """A request for the tiny model; ``config`` in ``more`` adds keys to the DeepSpeed config."""
    config = config_of(zero, **more.pop("config", {}))
    fields = {
        "hf_config": TINY_LLAMA,
        "world_size": ranks,
        "local_world_size": min(ranks, 8),
        "rank": rank,
        "seq_len": 32,
        "zero_init": zero.get("stage") == 3,
        "grad_accum": config.get("gradient_accumulation_steps", 1),
    }
    return Request(config=config, **{**fields, **more})


def job_for(config: dict[str, Any], spec: Any, ranks: int) -> Any:
    """A job whose attention is computed by the same operators on every device."""
    return make_job(config, spec, ranks, seq_len=32, attention="eager")
