"""Image classification as transformers' example does: a folder of images and torchvision."""

import sys
from dataclasses import dataclass, field

import evaluate
import numpy as np
import torch
from datasets import load_dataset
from torchvision.transforms import (
    CenterCrop,
    Compose,
    Lambda,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class Arguments:
    model_name_or_path: str = field()
    train_dir: str = field()
    train_val_split: float = 0.25
    ignore_mismatched_sizes: bool = False


def main():
    parser = HfArgumentParser((Arguments, TrainingArguments))
    args, training_args = parser.parse_args_into_dataclasses()
    rows = load_dataset("imagefolder", data_files={"train": f"{args.train_dir}/**"})
    split = rows["train"].train_test_split(args.train_val_split)
    rows["train"], rows["validation"] = split["train"], split["test"]
    labels = rows["train"].features["label"].names
    label2id = {label: str(i) for i, label in enumerate(labels)}
    metric = evaluate.load("accuracy")

    def compute_metrics(p):
        return metric.compute(predictions=np.argmax(p.predictions, axis=1), references=p.label_ids)

    config = AutoConfig.from_pretrained(
        args.model_name_or_path,
        num_labels=len(labels),
        label2id=label2id,
        id2label={i: label for label, i in label2id.items()},
        finetuning_task="image-classification",
    )
    model = AutoModelForImageClassification.from_pretrained(
        args.model_name_or_path,
        config=config,
        ignore_mismatched_sizes=args.ignore_mismatched_sizes,
    )
    processor = AutoImageProcessor.from_pretrained(args.model_name_or_path)
    if "shortest_edge" in processor.size:
        size = processor.size["shortest_edge"]
    else:
        size = (processor.size["height"], processor.size["width"])
    is_normalized = hasattr(processor, "image_mean") and hasattr(processor, "image_std")
    normalize = (
        Normalize(mean=processor.image_mean, std=processor.image_std)
        if is_normalized
        else Lambda(lambda x: x)
    )
    train_steps = [RandomResizedCrop(size), RandomHorizontalFlip(), ToTensor(), normalize]
    train_transforms = Compose(train_steps)
    val_transforms = Compose([Resize(size), CenterCrop(size), ToTensor(), normalize])

    def of(transforms):
        def apply(batch):
            batch["pixel_values"] = [transforms(image.convert("RGB")) for image in batch["image"]]
            return batch

        return apply

    rows["train"].set_transform(of(train_transforms))
    rows["validation"].set_transform(of(val_transforms))

    def collate(examples):
        pixels = torch.stack([example["pixel_values"] for example in examples])
        return {
            "pixel_values": pixels,
            "labels": torch.tensor([example["label"] for example in examples]),
        }

    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        compute_metrics=compute_metrics,
        processing_class=processor,
        data_collator=collate,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_state()
    trainer.log_metrics("eval", trainer.evaluate())


if __name__ == "__main__":
    sys.exit(main())
