"""A training script in the style of the transformers examples."""

import sys
from dataclasses import dataclass, field

import torch
from transformers import (
    AutoModelForCausalLM,
    HfArgumentParser,
    LlamaConfig,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


@dataclass
class ModelArguments:
    hidden_size: int = field(default=256)
    layers: int = field(default=2)


class Tokens(torch.utils.data.Dataset):
    def __init__(self, length, rows):
        self.rows = [{"input_ids": [i % 1000] * length} for i in range(rows)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {**row, "labels": row["input_ids"], "attention_mask": [1] * len(row["input_ids"])}


def main():
    parser = HfArgumentParser((ModelArguments, TrainingArguments))
    model_args, training_args = parser.parse_args_into_dataclasses()
    config = LlamaConfig(
        hidden_size=model_args.hidden_size,
        intermediate_size=512,
        num_hidden_layers=model_args.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1000,
    )
    model = AutoModelForCausalLM.from_config(config)
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=Tokens(128, 256),
        data_collator=default_data_collator,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)


if __name__ == "__main__":
    sys.exit(main())
