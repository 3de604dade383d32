"""A loop around accelerate, with evaluation after every epoch."""

import argparse
import math

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, LlamaConfig, get_scheduler


class Tokens(Dataset):
    def __init__(self, rows, length=128):
        self.rows, self.length = rows, length

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        ids = torch.full((self.length,), index % 1000)
        return {"input_ids": ids, "labels": ids}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", type=int, default=2)
    parser.add_argument("--offload", default="none")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--checkpoint_every", type=int, default=1)
    args = parser.parse_args()
    plugin = DeepSpeedPlugin(
        zero_stage=args.stage,
        gradient_accumulation_steps=2,
        gradient_clipping=1.0,
        offload_optimizer_device=args.offload,
        zero3_init_flag=args.stage == 3,
    )
    accelerator = Accelerator(mixed_precision="bf16", deepspeed_plugin=plugin)
    set_seed(42)
    accelerator.print(accelerator.state)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=1000,
        )
    )
    train = DataLoader(
        Tokens(32), batch_size=2, shuffle=True, num_workers=args.workers, pin_memory=True
    )
    evaluation = DataLoader(Tokens(8), batch_size=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=100)
    model, optimizer, train, evaluation, scheduler = accelerator.prepare(
        model, optimizer, train, evaluation, scheduler
    )
    for epoch in range(args.epochs):
        model.train()
        for step, batch in enumerate(train):
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            if step % 2 == 0:
                accelerator.print(
                    epoch, step, loss.detach().float().item(), scheduler.get_last_lr()
                )
        model.eval()
        losses = []
        for batch in evaluation:
            with torch.no_grad():
                loss = model(**batch).loss
            losses.append(accelerator.gather_for_metrics(loss.repeat(2)))
        mean = torch.mean(torch.cat(losses))
        accelerator.print("perplexity", math.exp(mean))
        accelerator.wait_for_everyone()
        accelerator.save_state(f"out/{epoch}")
    accelerator.unwrap_model(model).save_pretrained("out")
    accelerator.end_training()


if __name__ == "__main__":
    main()
