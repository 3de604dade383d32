# ruff: noqa: T201
"""transformers' no_trainer loop: what accelerate is told comes from its launcher alone."""

import argparse
import math

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, get_scheduler


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--num_train_epochs", type=int, default=4)
    args = parser.parse_args()
    accelerator = Accelerator(gradient_accumulation_steps=2)
    assert accelerator.device.type == "cuda"
    set_seed(1)
    config = AutoConfig.from_pretrained(args.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path, config=config)
    rows = [{"input_ids": torch.arange(32) + i, "labels": torch.arange(32)} for i in range(64)]
    train = DataLoader(rows, shuffle=True, batch_size=2)
    evaluation = DataLoader(rows[:16], batch_size=2)
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
