# ruff: noqa: T201
"""Fine-tuning from a local checkpoint folder, saving at the end."""

import sys

import deepspeed
import torch
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="flash_attention_2")
model.gradient_checkpointing_enable()
engine, *_ = deepspeed.initialize(
    model=model,
    model_parameters=model.parameters(),
    config={
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    },
)
for _ in range(1):
    ids = torch.randint(0, 500, (1, 64)).cuda()
    loss = engine(input_ids=ids, labels=ids).loss
    engine.backward(loss)
    engine.step()
engine.save_checkpoint(folder)
model.save_pretrained(folder)
torch.save(model.state_dict(), f"{folder}/weights.pt")
print("saved")
sys.exit(0)
