"""Fine-tuning on conversations, as FastChat does."""

import pathlib
from dataclasses import dataclass, field

import torch
import transformers
from torch.utils.data import Dataset
from transformers import Trainer


@dataclass
class ModelArguments:
    model_name_or_path: str | None = field(default="facebook/opt-125m")


@dataclass
class DataArguments:
    lazy_preprocess: bool = True


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    model_max_length: int = 64


class LazySupervisedDataset(Dataset):
    def __init__(self, tokenizer, length):
        self.tokenizer, self.length, self.cached = tokenizer, length, {}

    def __len__(self):
        return 64

    def __getitem__(self, i):
        if i not in self.cached:
            found = self.tokenizer(
                "the cat runs " * 40,
                return_tensors="pt",
                padding="max_length",
                max_length=self.length,
                truncation=True,
            ).input_ids[0]
            labels = found.clone()
            labels[:4] = -100
            self.cached[i] = {
                "input_ids": found,
                "labels": labels,
                "attention_mask": found.ne(self.tokenizer.pad_token_id),
            }
        return self.cached[i]


def train():
    parser = transformers.HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, _, training_args = parser.parse_args_into_dataclasses()
    config = transformers.AutoConfig.from_pretrained(model_args.model_name_or_path)
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_pretrained(
        model_args.model_name_or_path, config=config
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        model_args.model_name_or_path,
        model_max_length=training_args.model_max_length,
        padding_side="right",
        use_fast=False,
    )
    data = LazySupervisedDataset(tokenizer, training_args.model_max_length)
    trainer = Trainer(
        model=model, processing_class=tokenizer, args=training_args, train_dataset=data
    )
    if list(pathlib.Path(training_args.output_dir).glob("checkpoint-*")):
        trainer.train(resume_from_checkpoint=True)
    else:
        trainer.train()
    model.config.use_cache = True
    trainer.save_state()
    if trainer.is_deepspeed_enabled:
        trainer.save_model()
    else:
        torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    train()
