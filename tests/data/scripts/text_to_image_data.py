"""Captioned pictures for ``text_to_image.py``, by the calls of diffusers' example."""

import os
import random

import torch
from datasets import load_dataset
from torchvision import transforms


def pictures(args, tokenizer, accelerator):
    files = {"train": os.path.join(args.train_data_dir, "**")}
    found = load_dataset("imagefolder", data_files=files, cache_dir=args.cache_dir)
    mode = getattr(transforms.InterpolationMode, args.image_interpolation_mode.upper())
    size, is_centred = args.resolution, args.center_crop
    flip = transforms.RandomHorizontalFlip() if args.random_flip else transforms.Lambda(lambda x: x)
    to_tensor = transforms.Compose(
        [
            transforms.Resize(size, interpolation=mode),
            transforms.CenterCrop(size) if is_centred else transforms.RandomCrop(size),
            flip,
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )

    def ready(rows):
        rgb = [image.convert("RGB") for image in rows[args.image_column]]
        rows["pixel_values"] = [to_tensor(image) for image in rgb]
        several = rows[args.caption_column]
        captions = [one if isinstance(one, str) else random.choice(one) for one in several]
        rows["input_ids"] = tokenizer(
            captions,
            max_length=tokenizer.model_max_length,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return rows

    with accelerator.main_process_first():
        rows = found["train"]
        if args.max_train_samples is not None:
            rows = rows.shuffle(seed=args.seed).select(range(args.max_train_samples))
        return rows.with_transform(ready)


def collate(examples):
    pixels = torch.stack([example["pixel_values"] for example in examples])
    pixels = pixels.to(memory_format=torch.contiguous_format).float()
    return {
        "pixel_values": pixels,
        "input_ids": torch.stack([example["input_ids"] for example in examples]),
    }
