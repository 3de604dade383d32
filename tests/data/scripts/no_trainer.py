# ruff: noqa: T201
"""transformers' no_trainer loop: what accelerate is told comes from its launcher alone."""

import argparse
import math

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_dataset
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    default_data_collator,
    get_scheduler,
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--num_train_epochs", type=int, default=4)
    args = parser.parse_args()
    accelerator = Accelerator(gradient_accumulation_steps=2)
    assert accelerator.device.type == "cuda"
    set_seed(1)
    config = AutoConfig.from_pretrained(args.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, use_fast=True)
    model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path, config=config)
    raw = load_dataset("json", data_files=args.train_file, split="train")

    def tokenized(examples):
        found = tokenizer(examples["text"], max_length=32, truncation=True)
        return {**found, "labels": [ids.copy() for ids in found["input_ids"]]}

    with accelerator.main_process_first():
        rows = raw.map(tokenized, batched=True, remove_columns=raw.column_names)
    train = DataLoader(rows, shuffle=True, collate_fn=default_data_collator, batch_size=2)
    evaluation = DataLoader(rows.select(range(16)), collate_fn=default_data_collator, batch_size=2)
    no_decay = ["bias", "layer_norm.weight"]
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if not any(d in n for d in no_decay)], "weight_decay": 0.1},
        {"params": [p for n, p in named if any(d in n for d in no_decay)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=1e-4)
    steps = args.num_train_epochs * math.ceil(len(train) / 2)
    scheduler = get_scheduler("linear", optimizer, 0, steps)
    model, optimizer, train, evaluation, scheduler = accelerator.prepare(
        model, optimizer, train, evaluation, scheduler
    )
    accelerator.init_trackers("clm_no_trainer", vars(args))
    progress = tqdm(range(steps), disable=not accelerator.is_local_main_process)
    best = float("inf")
    for epoch in range(args.num_train_epochs):
        model.train()
        total_loss = 0
        for batch in train:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                total_loss += loss.detach().float()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            progress.update(int(accelerator.sync_gradients))
        model.eval()
        losses = []
        for batch in evaluation:
            with torch.no_grad():
                losses.append(accelerator.gather_for_metrics(model(**batch).loss.repeat(2)))
        mean = torch.mean(torch.cat(losses))
        perplexity = math.exp(mean)
        if mean < best:
            best = mean
        print(f"epoch {epoch}: loss {total_loss / len(train):.3f}, perplexity {perplexity:.2f}")
        accelerator.save_state(f"{args.output_dir}/epoch_{epoch}")
    assert best == 1.0
    unwrapped = accelerator.unwrap_model(model)
    unwrapped.save_pretrained(
        args.output_dir,
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
    )


if __name__ == "__main__":
    main()
