"""Records what each rank of ``deepspeed.init_inference`` holds (``tests/data/autotp_shapes.json``).

Usage: ``python scripts/record_autotp_shapes.py`` where torch, DeepSpeed and transformers are
installed. Small models run on real ranks over gloo, on a CPU; of each there are the fields of its
config, and for each rank the shapes that AutoTP changed, the bytes of all parameters, and the
elements that a layer's cache keeps of one token of one sequence.
"""

import contextlib
import importlib
import io
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "tests" / "data" / "autotp_shapes.json"
RANKS = (2, 3, 4)
_TOKENS = 5
_WIDTHS = {
    "hidden_size": 192,
    "intermediate_size": 176,  # no multiple of the grain, 64
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "vocab_size": 1003,
    "max_position_embeddings": 64,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_key_value_heads": 8}),
    "llama, fewer key and value heads than ranks": ("llama", {"num_key_value_heads": 2}),
    "llama, biases, tied": (
        "llama",
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True,
         "tie_word_embeddings": True},
    ),
    "qwen2, tied": ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"num_key_value_heads": 4, "head_dim": 16}),
    "qwen3_moe": (
        "qwen3_moe", {"num_key_value_heads": 4, "head_dim": 16, "num_experts": 4, **_EXPERTS}
    ),
    "mistral": ("mistral", {"num_key_value_heads": 4, "sliding_window": None}),
    "mixtral": ("mixtral", {"num_key_value_heads": 4, "num_local_experts": 4}),
    "gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("gemma2", {"num_key_value_heads": 4, "head_dim": 16}),
    "opt": ("opt", {"word_embed_proj_dim": 192, "ffn_dim": 256}),
    "gpt_neox": ("gpt_neox", {"intermediate_size": 256}),
    "phi": ("phi", {}),
    "falcon": ("falcon", {"num_kv_heads": 4, "new_decoder_architecture": True}),
    "starcoder2": ("starcoder2", {"num_key_value_heads": 2}),
    "deepseek_v3": (
        "deepseek_v3",
        {"num_key_value_heads": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
         "first_k_dense_replace": 1, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
         "qk_nope_head_dim": 8, "v_head_dim": 8, **_EXPERTS},
    ),
}  # fmt: skip


def fields_of(case: str) -> dict[str, Any]:
    """Fields of the case's config.json."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, own = CASES[case]
    config = AutoConfig.for_model(kind, **{**_WIDTHS, **own})
    mapped = AutoModelForCausalLM._model_mapping[type(config)]
    return {**json.loads(config.to_json_string(use_diff=False)), "architectures": [mapped.__name__]}


def _rank(rank: int, ranks: int, port: int, folder: str) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), DS_ACCELERATOR="cpu",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    import deepspeed
    import torch

    backend = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None  # which is compiled first, and takes one group alone
    backend.TorchBackend.inference_all_reduce = lambda self, tensor, op=None, group=None: (
        torch.distributed.all_reduce(tensor, group=group)
    )
    deepspeed.init_distributed("gloo")
    found = {case: _held(case, ranks) for case in CASES}
    Path(folder, f"{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def _held(case: str, ranks: int) -> dict[str, Any]:
    import deepspeed
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(CASES[case][0], **{**_WIDTHS, **CASES[case][1]})
    with contextlib.redirect_stdout(io.StringIO()):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        whole = {name: tuple(p.shape) for name, p in model.named_parameters()}
        asked = {"tensor_parallel": {"tp_size": ranks}, "dtype": "bf16"}
        module = deepspeed.init_inference(model, config=asked).module
    own = dict(module.named_parameters())
    with torch.no_grad():
        ids = torch.ones((1, _TOKENS), dtype=torch.long)
        cache = module(input_ids=ids, use_cache=True).past_key_values
    return {
        "shapes": {n: list(p.shape) for n, p in own.items() if whole.get(n) != tuple(p.shape)},
        "bytes": sum(p.numel() * p.element_size() for p in own.values()),
        "cache": [
            [layer.keys.numel() // _TOKENS, layer.values.numel() // _TOKENS]
            for layer in cache.layers
        ],
    }


def main() -> None:
    """Writes the file."""
    import torch.multiprocessing as processes

    cases: dict[str, Any] = {case: {"config": fields_of(case), "ranks": {}} for case in CASES}
    for ranks in RANKS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with tempfile.TemporaryDirectory() as folder:
            processes.spawn(_rank, (ranks, port, folder), nprocs=ranks)
            found = [json.loads(Path(folder, f"{r}.json").read_text()) for r in range(ranks)]
        for case in cases:
            cases[case]["ranks"][str(ranks)] = [one[case] for one in found]
    lines = [f"{json.dumps(case)}: {json.dumps(value)}" for case, value in cases.items()]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"wrote {PATH.name}, {PATH.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
