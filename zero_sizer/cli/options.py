"""The options every command about a job shares."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from zero_sizer.errors import InputError
from zero_sizer.job.read import Flags, Job, read

if TYPE_CHECKING:
    from zero_sizer.job.goal import Goal


def add_job_options(parser: argparse.ArgumentParser, *, needs_config: bool = True) -> None:
    """CONFIG and the shared options of the contract."""
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs=None if needs_config else "?",
        help="a DeepSpeed JSON, or a job YAML",
    )
    parser.add_argument("--model", help="bundled name, path, module:factory, or params=7e9,...")
    parser.add_argument(
        "--adapter", metavar="LORA", help="adapter_config.json, or r=16,targets=all-linear"
    )
    parser.add_argument(
        "--quantization", metavar="HOW", help="of the frozen base: nf4,double or int8"
    )
    parser.add_argument(
        "--freeze",
        action="append",
        metavar="PATTERN",
        help="parameters that are not trained, e.g. '*.embed_tokens.*'; may be repeated",
    )
    parser.add_argument(
        "--allow-code",
        action="store_const",
        const=True,
        help="let a job YAML name a module:factory, which is imported and called",
    )
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--nodes", type=count)
    cluster.add_argument("--gpus-per-node", type=count)
    cluster.add_argument("--gpu", metavar="NAME", help="see `zero-sizer gpus`")
    cluster.add_argument("--gpu-memory", metavar="SIZE", help="instead of what the GPU shows")
    cluster.add_argument("--host-memory", metavar="SIZE", help="RAM of a node, e.g. 2TiB")
    cluster.add_argument("--nvme", metavar="SIZE", help="NVMe of a node")
    cluster.add_argument("--hostfile", metavar="FILE", help="a DeepSpeed hostfile")
    workload = parser.add_argument_group("workload: what the files cannot say")
    workload.add_argument("--seq-len", type=count, metavar="TOKENS")
    workload.add_argument("--micro-batch", type=count, metavar="SAMPLES")
    workload.add_argument("--grad-accum", type=count, metavar="STEPS")
    workload.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=None)
    workload.add_argument(
        "--checkpointing-how",
        metavar="WORDS",
        help="on, and: every-K or first-K blocks; offload; reentrant or deepspeed (comma between)",
    )
    workload.add_argument("--attention", choices=("flash", "sdpa", "eager"))
    workload.add_argument(
        "--sequences",
        choices=("equal", "padded", "packed"),
        help="all of --seq-len, padded to it with a mask, or packed into it",
    )
    workload.add_argument(
        "--loss",
        choices=("transformers", "transformers-16bit", "megatron", "fused", "fused-linear"),
        help="what computes it: transformers (default), or before 4.46 with logits left in 16 bits "
        "(GPT-2, OPT, ...), Megatron, flash-attn (fused), or Liger (fused-linear)",
    )
    workload.add_argument(
        "--kernels",
        choices=("transformers", "liger"),
        help="liger: the Trainer's use_liger_kernel, its loss and its other kernels",
    )
    workload.add_argument(
        "--num-workers", type=whole, metavar="N", help="of each rank's data loader (0)"
    )
    workload.add_argument(
        "--prefetch", type=count, metavar="BATCHES", help="that each worker has ready (2)"
    )
    workload.add_argument("--precision", choices=("bf16", "fp16", "fp32"), help='for "auto"')
    workload.add_argument("--zero-init", action=argparse.BooleanOptionalAction, default=None)


TRAINING = ("--tokens", "--samples", "--epochs", "--start", "--rate", "--rates")
GOAL = ("--target-days", "--budget")


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """How much is trained, from when and at which price."""
    group = parser.add_argument_group("training run: time, energy and price")
    group.add_argument("--tokens", metavar="N", help="of the data, e.g. 300B or 1.5T")
    group.add_argument(
        "--samples", metavar="N", help="of the data, each of --seq-len tokens, e.g. 2M"
    )
    group.add_argument("--epochs", metavar="N", help="times that the data is gone through (1)")
    group.add_argument("--start", metavar="DAY", help="first day, as 2026-01-31 (today)")
    group.add_argument(
        "--rate", metavar="USD", help="price of a GPU-hour, instead of the published lists'"
    )
    group.add_argument(
        "--rates", metavar="FILE", help="YAML of usd_per_gpu_hour by GPU, pue, node_watts_over_gpus"
    )


def add_goal_options(parser: argparse.ArgumentParser) -> None:
    """What the training run may take."""
    group = parser.add_argument_group("goal of the training run")
    group.add_argument("--target-days", metavar="DAYS", help="the most days that it may take")
    group.add_argument("--budget", metavar="USD", help="the most that it may cost")


def goal_from(arguments: argparse.Namespace, job: Job) -> "Goal | None":
    """The training run that job and options describe; None where nobody says how much."""
    names = ("start", "rate", "rates", "target_days", "budget")
    given = {name: getattr(arguments, name, None) for name in names}
    workload = job.workload
    if workload.tokens is None and workload.samples is None and not any(given.values()):
        return None
    from zero_sizer.job.goal import Wishes, goal_of

    return goal_of(workload, job.cluster, Wishes(**given))


def add_format_option(parser: argparse.ArgumentParser) -> None:
    """``--format text|json``."""
    parser.add_argument("--format", choices=("text", "json"), default="text")


def job_from(arguments: argparse.Namespace) -> Job:
    """The job that the parsed options describe."""
    return read(arguments.config, flags_from(arguments))


def flags_from(arguments: argparse.Namespace) -> Flags:
    """The shared options that were given."""
    values: dict[str, Any] = {f.name: getattr(arguments, f.name, None) for f in fields(Flags)}
    how = arguments.checkpointing_how
    if how is not None and arguments.checkpointing is False:
        raise InputError(
            "says how, and --no-checkpointing that there is none",
            remedy="leave one of the two out",
            where="--checkpointing-how",
        )
    return Flags(**{**values, "checkpointing": arguments.checkpointing if how is None else how})


def whole(text: str) -> int:
    """A whole number from 0 on."""
    return 0 if text.strip() == "0" else count(text)


def count(text: str) -> int:
    """A whole number from 1 on."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 0 < value < 2**40:
        raise argparse.ArgumentTypeError(f"{text} is out of range; a count is 1 or more")
    return value
