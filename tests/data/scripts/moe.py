# ruff: noqa: T201
"""CIFAR-10 by a mixture of experts, with the calls and flags of DeepSpeed's cifar tutorial."""

import argparse
import os

import deepspeed
import torch
import torchvision
from deepspeed.accelerator import get_accelerator
from deepspeed.moe.utils import split_params_into_different_moe_groups_for_optimizer
from torch import nn
from torch.nn import functional
from torchvision import transforms

FLAT = 16 * 5 * 5


def arguments():
    parser = argparse.ArgumentParser(description="CIFAR")
    parser.add_argument("-e", "--epochs", type=int, default=30)
    parser.add_argument("--local_rank", type=int, default=-1)
    parser.add_argument("--log-interval", type=int, default=2000)
    parser.add_argument("--dtype", default="fp16", choices=["bf16", "fp16", "fp32"])
    parser.add_argument("--stage", type=int, default=0, choices=[0, 1, 2, 3])
    parser.add_argument("--moe", action="store_true")
    parser.add_argument("--ep-world-size", type=int, default=1)
    parser.add_argument("--num-experts", type=int, nargs="+", default=[1])
    parser.add_argument("--mlp-type", default="standard")
    parser.add_argument("--top-k", type=int, default=1)
    parser.add_argument("--min-capacity", type=int, default=0)
    parser.add_argument("--noisy-gate-policy")
    parser.add_argument("--moe-param-group", action="store_true")
    return deepspeed.add_config_arguments(parser).parse_args()


def settings(args):
    adam = {"lr": 0.001, "betas": [0.8, 0.999], "eps": 1e-8, "weight_decay": 3e-7}
    warmup = {"warmup_min_lr": 0, "warmup_max_lr": 0.001, "warmup_num_steps": 1000}
    return {
        "train_batch_size": 16,
        "steps_per_print": 2000,
        "optimizer": {"type": "Adam", "params": adam},
        "scheduler": {"type": "WarmupLR", "params": warmup},
        "gradient_clipping": 1.0,
        "prescale_gradients": False,
        "bf16": {"enabled": args.dtype == "bf16"},
        "fp16": {
            "enabled": args.dtype == "fp16",
            "fp16_master_weights_and_grads": False,
            "loss_scale": 0,
            "loss_scale_window": 500,
            "hysteresis": 2,
            "min_loss_scale": 1,
            "initial_scale_power": 15,
        },
        "wall_clock_breakdown": False,
        "zero_optimization": {
            "stage": args.stage,
            "allgather_partitions": True,
            "reduce_scatter": True,
            "allgather_bucket_size": 50_000_000,
            "reduce_bucket_size": 50_000_000,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "cpu_offload": False,
        },
    }


class Net(nn.Module):
    """Two convolutions, two layers, then one of experts for each number, or a plain one."""

    def __init__(self, args):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(FLAT, 120)
        self.fc2 = nn.Linear(120, 84)
        self.experts = nn.ModuleList()
        if args.moe:
            expert = nn.Linear(84, 84)
            for count in args.num_experts:
                layer = deepspeed.moe.layer.MoE(
                    hidden_size=84,
                    expert=expert,
                    num_experts=count,
                    ep_size=args.ep_world_size,
                    use_residual=args.mlp_type == "residual",
                    k=args.top_k,
                    min_capacity=args.min_capacity,
                    noisy_gate_policy=args.noisy_gate_policy,
                )
                self.experts.append(layer)
        self.last = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(functional.relu(self.conv1(x)))
        x = self.pool(functional.relu(self.conv2(x)))
        x = x.view(-1, FLAT)
        x = functional.relu(self.fc2(functional.relu(self.fc1(x))))
        for layer in self.experts:
            x, _, _ = layer(x)
        return self.last(x)


def groups_of(net):
    """Groups of parameters in which experts stand apart from the others."""
    parameters = {"params": list(net.parameters()), "name": "parameters"}
    return split_params_into_different_moe_groups_for_optimizer(parameters)


def pictures():
    """Rows for training and for the test; rank 0 fetches what is missing first."""
    halves = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*halves)])
    if torch.distributed.get_rank() != 0:
        torch.distributed.barrier()
    train, test = (
        torchvision.datasets.CIFAR10(root="./data", train=part, download=True, transform=change)
        for part in (True, False)
    )
    if torch.distributed.get_rank() == 0:
        torch.distributed.barrier()
    return train, test


def evaluate(engine, rows, device, dtype, batch_size=4):
    loader = torch.utils.data.DataLoader(rows, batch_size=batch_size, shuffle=False, num_workers=0)
    right, seen = [0.0] * 10, [0.0] * 10
    engine.eval()
    with torch.no_grad():
        for images, labels in loader:
            outputs = engine((images if dtype is None else images.to(dtype)).to(device))
            _, predicted = torch.max(outputs.data, 1)
            matches = (predicted == labels.to(device)).squeeze()
            for i, label in enumerate(labels):
                right[label] += matches[i].item()
                seen[label] += 1
    if engine.local_rank == 0:
        print(f"accuracy: {100 * sum(right) / sum(seen):.0f} %")
        for i, (good, all_of_it) in enumerate(zip(right, seen, strict=True)):
            print(f"class {i}: {100 * good / all_of_it:2.0f} %")


def main(args):
    deepspeed.init_distributed()
    get_accelerator().set_device(int(os.environ.get("LOCAL_RANK")))
    train, test = pictures()
    net = Net(args)
    parameters = filter(lambda p: p.requires_grad, net.parameters())
    if args.moe_param_group:
        parameters = groups_of(net)
    engine, _, loader, _ = deepspeed.initialize(
        args=args,
        model=net,
        model_parameters=parameters,
        training_data=train,
        config=settings(args),
    )
    device = get_accelerator().device_name(engine.local_rank)
    dtype = None
    if engine.bfloat16_enabled():
        dtype = torch.bfloat16
    elif engine.fp16_enabled():
        dtype = torch.half
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        running = 0.0
        for i, data in enumerate(loader):
            inputs, labels = data[0].to(device), data[1].to(device)
            if dtype is not None:
                inputs = inputs.to(dtype)
            outputs = engine(inputs)
            loss = criterion(outputs, labels)
            engine.backward(loss)
            engine.step()
            running += loss.item()
            if engine.local_rank == 0 and i % args.log_interval == args.log_interval - 1:
                print(f"[{epoch + 1: d}, {i + 1: 5d}] loss: {running / args.log_interval: .3f}")
                running = 0.0
    evaluate(engine, test, device, dtype)


if __name__ == "__main__":
    main(arguments())
