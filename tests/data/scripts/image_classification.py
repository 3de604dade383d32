"""Image classification with the Trainer, as transformers' example does, without an image file."""

import sys

import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments, ViTConfig
from transformers import ViTForImageClassification as Model


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"pixel_values": torch.rand(3, 32, 32), "labels": index % 10}


def collate(examples):
    pixels = torch.stack([example["pixel_values"] for example in examples])
    return {"pixel_values": pixels, "labels": torch.tensor([e["labels"] for e in examples])}


def main():
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    config = ViTConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    trainer = Trainer(model=Model(config), args=args, train_dataset=Images(), data_collator=collate)
    trainer.train()


if __name__ == "__main__":
    sys.exit(main())
