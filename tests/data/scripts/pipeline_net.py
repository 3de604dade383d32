#!/usr/bin/env python3
# ruff: noqa: T201
"""torchvision's AlexNet over pipeline stages, with the calls of DeepSpeed's tutorial; or whole."""

import argparse
import os

import deepspeed
import torch
import torch.distributed as dist
import torchvision
from deepspeed.pipe import LayerSpec, PipelineModule
from deepspeed.utils import RepeatingLoader
from torchvision import transforms
from torchvision.models import AlexNet


def arguments():
    parser = argparse.ArgumentParser(description="CIFAR")
    parser.add_argument("--local_rank", type=int, default=-1)
    parser.add_argument("-s", "--steps", type=int, default=100)
    parser.add_argument("-p", "--pipeline-parallel-size", type=int, default=2)
    parser.add_argument("--backend", default="nccl")
    parser.add_argument("--seed", type=int, default=1138)
    parser.add_argument("--late", action="store_true", help="the last layers by LayerSpec")
    return deepspeed.add_config_arguments(parser).parse_args()


def pictures(local_rank, folder="./data"):
    """CIFAR-10 at AlexNet's size; one rank fetches what is missing first."""
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    change = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    change.append(transforms.Normalize(mean=mean, std=deviation))
    dist.barrier()
    if local_rank != 0:
        dist.barrier()
    rows = torchvision.datasets.CIFAR10(
        root=folder, train=True, download=True, transform=transforms.Compose(change)
    )
    if local_rank == 0:
        dist.barrier()
    return rows


def join_layers(model):
    flat = lambda x: torch.flatten(x, 1)  # noqa: E731
    return [*model.features, model.avgpool, flat, *model.classifier]


def late_layers(model):
    """As ``join_layers``; the stage that holds a linear layer makes it."""
    made = []
    for layer in join_layers(model):
        if isinstance(layer, torch.nn.Linear):
            layer = LayerSpec(torch.nn.Linear, layer.in_features, layer.out_features)
        made.append(layer)
    return made


def train_whole(args):
    torch.manual_seed(args.seed)
    net = AlexNet(num_classes=10)
    rows = pictures(args.local_rank)
    engine, _, loader, _ = deepspeed.initialize(
        args=args,
        model=net,
        model_parameters=[p for p in net.parameters() if p.requires_grad],
        training_data=rows,
    )
    batches = iter(RepeatingLoader(loader))
    criterion = torch.nn.CrossEntropyLoss()
    step, micro_steps = 0, engine.gradient_accumulation_steps()
    for micro_step in range(args.steps * micro_steps):
        batch = next(batches)
        inputs, labels = batch[0].to(engine.device), batch[1].to(engine.device)
        outputs = engine(inputs)
        loss = criterion(outputs, labels)
        engine.backward(loss)
        engine.step()
        if micro_step % micro_steps == 0:
            step += 1
            if dist.get_rank() == 0 and step % 10 == 0:
                print(f"step: {step:3d} / {args.steps:3d} loss: {loss}")


def train_in_stages(args, part="parameters"):
    torch.manual_seed(args.seed)
    deepspeed.runtime.utils.set_random_seed(args.seed)
    net = AlexNet(num_classes=10)
    net = PipelineModule(
        layers=(late_layers if args.late else join_layers)(net),
        loss_fn=torch.nn.CrossEntropyLoss(),
        num_stages=args.pipeline_parallel_size,
        partition_method=part,
        activation_checkpoint_interval=0,
    )
    rows = pictures(args.local_rank)
    engine, _, _, _ = deepspeed.initialize(
        args=args,
        model=net,
        model_parameters=[p for p in net.parameters() if p.requires_grad],
        training_data=rows,
    )
    for _ in range(args.steps):
        engine.train_batch()


def main():
    args = arguments()
    deepspeed.init_distributed(dist_backend=args.backend)
    args.local_rank = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(args.local_rank)
    if args.pipeline_parallel_size == 0:
        train_whole(args)
    else:
        train_in_stages(args)


if __name__ == "__main__":
    main()
