# ruff: noqa: T201
"""A pipeline of layers over stages, as DeepSpeed's tutorial trains AlexNet."""

import argparse
import os

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.pipe import LayerSpec, PipelineModule
from torch import nn


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank", type=int, default=-1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("-p", "--pipeline-parallel-size", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1138)
    parser = deepspeed.add_config_arguments(parser)
    args = parser.parse_args()
    deepspeed.init_distributed(dist_backend="nccl")
    args.local_rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(args.local_rank)
    torch.manual_seed(args.seed)
    deepspeed.runtime.utils.set_random_seed(args.seed)
    layers = [
        LayerSpec(nn.Conv2d, 3, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        LayerSpec(nn.MaxPool2d, 2),
        lambda x: x.view(x.size(0), -1),
        LayerSpec(nn.Linear, 16 * 16 * 16, 256),
        LayerSpec(nn.Linear, 256, 10),
    ]
    net = PipelineModule(
        layers=layers,
        loss_fn=nn.CrossEntropyLoss(),
        num_stages=args.pipeline_parallel_size,
        partition_method="parameters",
        activation_checkpoint_interval=0,
    )
    rows = [(torch.rand(3, 32, 32), i % 10) for i in range(256)]
    engine, _, _, _ = deepspeed.initialize(
        args=args,
        model=net,
        model_parameters=[p for p in net.parameters() if p.requires_grad],
        training_data=rows,
        config={
            "train_batch_size": 64,
            "train_micro_batch_size_per_gpu": 4,
            "steps_per_print": 1,
            "optimizer": {"type": "Adam", "params": {"lr": 0.001}},
        },
    )
    for step in range(args.steps):
        loss = engine.train_batch()
        if dist.get_rank() == 0:
            print(f"step {step}: {loss:.3f}")


if __name__ == "__main__":
    main()
