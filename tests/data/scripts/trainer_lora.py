"""LoRA through peft in a Trainer script, in the style of the transformers examples."""

import sys

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    HfArgumentParser,
    LlamaConfig,
    Trainer,
    TrainingArguments,
    default_data_collator,
)


class Tokens(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        tokens = [index % 1000] * 128
        return {"input_ids": tokens, "labels": tokens, "attention_mask": [1] * len(tokens)}


def main():
    (training_args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1000,
    )
    base = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=8, lora_dropout=0.05, target_modules=["q_proj", "v_proj"]
    )
    model = get_peft_model(base, lora)
    model.print_trainable_parameters()
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=Tokens(),
        data_collator=default_data_collator,
    )
    trainer.train()
    model.save_pretrained(training_args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
