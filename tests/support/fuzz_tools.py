"""Cases of other tools' files: a sensible one with odd values, and scripts cut and mixed."""

import json
from random import Random
from typing import Any

from support.fuzz_commands import CLUSTER
from support.fuzz_values import TEXTS, Case, as_json, as_yaml, damaged, mutated

DS: Any = {
    "train_micro_batch_size_per_gpu": "auto",
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 2},
}
_TRAINER: Any = {
    "output_dir": "o",
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": True},
    "dataloader_num_workers": 2,
    "learning_rate": 1e-4,
    "optim": "adafactor",
    "bf16": True,
    "deepspeed": DS,
}
TOOLS: Any = {
    "accelerate": {
        "distributed_type": "DEEPSPEED",
        "num_machines": 2,
        "num_processes": 16,
        "mixed_precision": "bf16",
        "deepspeed_config": {
            "zero_stage": 3,
            "zero3_init_flag": True,
            "offload_optimizer_device": "cpu",
            "gradient_accumulation_steps": 2,
        },
    },
    "LLaMA-Factory": {
        **_TRAINER,
        "model_name_or_path": "gpt2",
        "stage": "sft",
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_target": "all",
        "cutoff_len": 128,
        "flash_attn": "sdpa",
        "quantization_bit": 4,
        "freeze_trainable_layers": 2,
        "enable_liger_kernel": True,
    },
    "axolotl": {
        "base_model": "gpt2",
        "adapter": "qlora",
        "load_in_4bit": True,
        "lora_r": 8,
        "lora_target_linear": True,
        "lora_modules_to_save": ["lm_head"],
        "sequence_len": 128,
        "sample_packing": True,
        "micro_batch_size": 1,
        "optimizer": "adamw_bnb_8bit",
        "plugins": ["axolotl.integrations.liger.LigerPlugin"],
        "gradient_checkpointing": True,
        "deepspeed": DS,
    },
    "ms-swift": {
        **_TRAINER,
        "model": "gpt2",
        "tuner_type": "lora",
        "target_modules": ["c_attn"],
        "max_length": 128,
        "torch_dtype": "bfloat16",
        "deepspeed": "zero3",
    },
    "trl": {
        **_TRAINER,
        "model_name_or_path": "gpt2",
        "use_peft": True,
        "lora_target_modules": "all-linear",
        "max_length": 128,
        "packing": True,
        "load_in_4bit": True,
    },
    "TrainingArguments": {**_TRAINER, "model_name_or_path": "gpt2", "block_size": 128},
}
SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --gres=gpu:8
#SBATCH --mem=512G
N=$(($SLURM_NNODES * 8))
export MODEL=${MODEL:-gpt2}
cat <<EOF > hosts
deepspeed other.py
EOF
L="accelerate launch --use_deepspeed --zero_stage 2 \\
   --num_machines $SLURM_NNODES --num_processes $N"
srun bash -c "$L train.py --model_name_or_path $MODEL --bf16 --max_length 128 \\
   --per_device_train_batch_size 1 --lora_r 8 --use_peft true" 2>&1 | tee log
"""
_PIECES = (
    *("$(", "`", "'", '"', "\\\n", ";", "&&", "|", "${", "}", "$((1/0))", "$((9**9**9))", "<<EOF"),
    *(" --deepspeed ds.json ", " --config_file a.yaml ", " -m ", "=", "#SBATCH -N 0", "A=$A$A\n"),
)


def _file(random: Random) -> tuple[str, bytes]:
    tool = mutated(random, random.choice(list(TOOLS.values())))
    if random.random() < 0.3:
        return "c.json", as_json(random, tool)
    return "c.yaml", as_yaml(random, tool)


def check_tool(random: Random) -> Case:
    name, data = _file(random)
    model = ["--model", "gpt2"] if random.random() < 0.5 else []
    argv = ["check", f"@/{name}", *model, *CLUSTER, *random.choice(([], ["--format=json"]))]
    return Case("check: another tool's file", tuple(argv), {name: data})


def _script(random: Random) -> bytes:
    text = SCRIPT
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(text) + 1)
        end = min(len(text), at + random.choice((0, 0, 5, 40)))
        text = text[:at] + random.choice((*_PIECES, *TEXTS))[:2000] + text[end:]
    data = text.encode("utf-8", "surrogatepass")
    return damaged(random, data) if random.random() < 0.2 else data


def check_script(random: Random) -> Case:
    files = {
        "run.sh": _script(random),
        "ds.json": json.dumps(DS).encode(),
        "a.yaml": as_yaml(random, mutated(random, TOOLS["accelerate"])),
    }
    argv = ["check", "@/run.sh", *random.choice(([], ["--model", "gpt2"])), "--gpu", "h100-80gb"]
    return Case("check: script", tuple(argv), files)


def read_tool(random: Random) -> Case:
    from zero_sizer.job.readers import recognise

    name, data = _file(random)
    return Case("reader: another tool's file", (), {name: data},
                lambda at: recognise.read(str(at / name)))  # fmt: skip


def read_script(random: Random) -> Case:
    from zero_sizer.job.readers import recognise

    return Case("reader: script", (), {"run.sh": _script(random)},
                lambda at: recognise.read(str(at / "run.sh")))  # fmt: skip
