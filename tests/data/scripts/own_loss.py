# ruff: noqa: T201
"""A script in the style of DeepSpeed's tutorials: argparse, training_data, a device by its rank."""

import argparse
import os

import deepspeed
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset


class Net(nn.Module):
    def __init__(self, width=256, layers=3, vocab=1000):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocab)

    def forward(self, ids):
        return self.head(self.blocks(self.embed(ids)))


class Tokens(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.arange(64) % 1000, torch.arange(64) % 1000


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank", type=int, default=int(os.environ.get("LOCAL_RANK", -1)))
    parser.add_argument("--epochs", type=int, default=2)
    return deepspeed.add_config_arguments(parser).parse_args()


def main():
    args = arguments()
    assert torch.cuda.is_available()
    torch.cuda.set_device(args.local_rank)
    device = torch.device("cuda", args.local_rank)
    deepspeed.init_distributed(dist_backend="nccl")
    torch.backends.cuda.matmul.allow_tf32 = True
    gpu = torch.cuda.get_device_properties(device)
    print(
        gpu.name,
        gpu.total_memory / 2**30,
        gpu.multi_processor_count,
        torch.cuda.get_device_capability(),
    )
    print("bf16", torch.cuda.is_bf16_supported(), "of", torch.cuda.device_count())
    net = Net().to(device)
    params = [p for p in net.parameters() if p.requires_grad]
    engine, _, loader, _ = deepspeed.initialize(
        args=args, model=net, model_parameters=params, training_data=Tokens()
    )
    dtype = next(engine.parameters()).dtype
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for epoch in range(args.epochs):
        for step, (ids, labels) in enumerate(loader):
            start.record()
            ids, labels = ids.to(engine.local_rank), labels.to(device, non_blocking=True)
            logits = engine(ids)
            loss = functional.cross_entropy(
                logits.view(-1, logits.size(-1)).float(), labels.view(-1)
            )
            engine.backward(loss)
            engine.step()
            end.record()
            torch.cuda.synchronize()
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            if dist.get_rank() == 0:
                print(epoch, step, mean.item() / dist.get_world_size(), start.elapsed_time(end))
                print(engine.get_global_grad_norm(), engine.get_lr(), engine.global_steps, dtype)
        engine.eval()
        with torch.no_grad():
            correct = torch.tensor(0.0, device=device)
            for ids, labels in loader:
                predicted = engine(ids.to(device)).argmax(-1)
                correct += (predicted == labels.to(device)).float().mean()
            dist.all_reduce(correct, op=dist.ReduceOp.SUM)
            print("accuracy", (correct / len(loader)).item())
        engine.train()
        engine.save_checkpoint("checkpoints", tag=f"epoch{epoch}")
    print(torch.cuda.memory_summary())


if __name__ == "__main__":
    main()
