# ruff: noqa: T201
"""A mixture of experts on images, as DeepSpeed's tutorial trains it."""

import argparse

import deepspeed
import torch
from deepspeed.moe.layer import MoE
from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(6 * 14 * 14, 84)
        self.moe = MoE(
            hidden_size=84,
            expert=nn.Linear(84, 84),
            num_experts=args.num_experts,
            ep_size=args.ep_world_size,
            k=args.top_k,
            min_capacity=0,
            noisy_gate_policy=args.noisy_gate_policy,
        )
        self.fc2 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(functional.relu(self.conv(x)))
        x = functional.relu(self.fc1(x.view(-1, 6 * 14 * 14)))
        x, _, _ = self.moe(x)
        return self.fc2(x)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank", type=int, default=-1)
    parser.add_argument("--num-experts", type=int, default=4)
    parser.add_argument("--ep-world-size", type=int, default=2)
    parser.add_argument("--top-k", type=int, default=1)
    parser.add_argument("--noisy-gate-policy", default="RSample")
    parser = deepspeed.add_config_arguments(parser)
    args = parser.parse_args()
    deepspeed.init_distributed()
    if torch.distributed.get_rank() != 0:
        torch.distributed.barrier()
    rows = [(torch.rand(3, 32, 32), i % 10) for i in range(128)]
    net = Net(args)
    parameters = {"params": [p for p in net.parameters() if p.requires_grad], "name": "parameters"}
    groups = split_params_into_different_moe_groups_for_optimizer(parameters)
    config = {
        "train_batch_size": 64,
        "steps_per_print": 2000,
        "optimizer": {"type": "Adam", "params": {"lr": 0.001}},
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 2},
    }
    engine, _, loader, _ = deepspeed.initialize(
        args=args, model=net, model_parameters=groups, training_data=rows, config=config
    )
    criterion = nn.CrossEntropyLoss()
    running = 0.0
    for _ in range(10):
        for i, data in enumerate(loader):
            inputs, labels = data[0].to(engine.local_rank), data[1].to(engine.local_rank)
            outputs = engine(inputs.to(torch.bfloat16))
            loss = criterion(outputs, labels)
            engine.backward(loss)
            engine.step()
            running += loss.item()
            print(f"[{i:5d}] loss: {running / 10:.3f}")


if __name__ == "__main__":
    main()
