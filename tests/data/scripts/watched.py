"""The Trainer with a callback that watches its memory, and may be told a wrong length."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from zero_sizer.integrations.transformers import MemoryCallback

output, *length = sys.argv[1:]


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 128

    def __getitem__(self, index):
        ids = torch.arange(256) + index
        return {"input_ids": ids, "labels": ids}


config = {
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000000},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
}
arguments = TrainingArguments(
    output_dir="out",
    max_steps=5,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    bf16=True,
    deepspeed=config,
    report_to=[],
    save_strategy="no",
    disable_tqdm=True,
)
model = LlamaForCausalLM(
    LlamaConfig(
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=4096,
    )
)
callback = MemoryCallback(output, seq_len=int(length[0]) if length else None)
trainer = Trainer(model=model, args=arguments, train_dataset=Tokens(), callbacks=[callback])
for name, module in list(sys.modules.items()):
    # In a simulated run DeepSpeed reports, and resets the peak, at every boundary of its own.
    if name.startswith("deepspeed") and hasattr(module, "see_memory_usage"):
        module.see_memory_usage = lambda *args, **kwargs: None
trainer.train()
