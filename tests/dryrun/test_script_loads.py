"""Where a script puts its model before DeepSpeed takes it, beside the simulated GPU."""

import json

import pytest
from support.script_runs import SCRIPTS, run_scripts

import zero_sizer

pytestmark = pytest.mark.slow

MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
}
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 100_000},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
}
WAYS = {  # of the script -> what says it
    "fp32": {"loaded_on": "gpu-fp32"},
    "frozen": {"loaded_on": "gpu-fp32", "freeze": ["model.embed_tokens"]},
    "gpu": {"loaded_on": "gpu"},
}


def test_init_is_that_of_a_model_that_a_script_loads_onto_the_gpu(tmp_path):
    """In fp32, what is trained lies there at twice its size before a byte is partitioned."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    words = ("torchrun", "--nproc_per_node", "8", SCRIPTS / "loads_on_gpu.py", "ds.json")
    lines = {way: [*words, way] for way in WAYS}
    found = run_scripts(tmp_path, lines, imports=("deepspeed", "transformers"))
    highest = {}
    for way, said in WAYS.items():
        phases = found[way].ranks[0].phases
        init = [phase.device["gpu"]["max_allocated"] for phase in phases if phase.name == "init"]
        answer = zero_sizer.check(
            tmp_path / "ds.json",
            model=str(tmp_path / "model"),
            gpus_per_node=8,
            gpu="a100-80gb",
            seq_len=128,
            **said,
        )
        predicted = answer.to_dict()["phases"]
        assert predicted["gpu"]["init"] == pytest.approx(max(init), abs=1024), way
        assert predicted["host"]["init"] == 0
        highest[way] = max(init)
    assert highest["fp32"] > highest["frozen"] > 0
