"""Every value that users state, in one table: ``Flags``.

A row makes the option of the command line with its help, the key of a job YAML, the keyword of
``Flags``, the check of the value and what stands in the answer where nobody stated it.
"""

from collections.abc import Callable, Mapping
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any

from zero_sizer.config import workload
from zero_sizer.config.settings import Setting
from zero_sizer.config.workload import DYNAMIC, INFERENCE, STATIC, TRAINING
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import RATES
from zero_sizer.job.values import (
    TOKENS_OF_K,
    Amount,
    Number,
    OneOf,
    Size,
    Whole,
    checkpointing,
    day,
    images,
    optim,
    pixels,
    rate,
    release,
    text,
    yes_or_no,
)
from zero_sizer.models.attention import FLASH_KERNELS
from zero_sizer.models.changes.freeze import patterns
from zero_sizer.models.feeds.records import PROCESSOR, TRAINER
from zero_sizer.units import TIB
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:
    from datetime import date

Check = Callable[[Any], Any]  # the value, or ValueError in the user's words


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One value that users may state.

    Attributes:
        name: key in the YAML section, and of ``Flags``.
        check: gives the typed value or raises ValueError.
        section: of a job YAML: ``cluster``, ``workload``, or empty.
        group: of the help: the section, or ``training``, ``inference`` and ``goal``, which some
            commands take.
        metavar: what the help calls the value; empty: the option's own name.
        help: one clause.
        usual: what is shown where nobody states it.
        in_config: the DeepSpeed config says it too, so the answer shows it there.
        short: a letter for what is typed often; empty for most.
    """

    name: str
    check: Check
    section: str = ""
    group: str = ""
    metavar: str = ""
    help: str = ""
    usual: Setting | None = None
    in_config: bool = False
    short: str = ""

    @property
    def flag(self) -> str:
        """The command line option."""
        return "--" + self.name.replace("_", "-")

    def parse(self, value: Any, where: str) -> Any:
        """The typed value.

        Raises:
            InputError: wrong type or out of bounds, naming ``where``.
        """
        try:
            return self.check(value)
        except ValueError as error:
            named = "" if where.startswith("--") else f"{self.name}: "
            raise InputError(f"{named}{error}", where=where) from None


def _row(check: Check, section: str = "", **more: Any) -> Any:
    about = {"check": check, "section": section, "group": section, **more}
    return field(default=None, metadata=about)


_ANY = 2**31
_HOSTS = Size(2**20 * TIB)
_CLUSTER, _WORKLOAD = "cluster", "workload"
TRAINING_RUN, GOAL = "training", "goal"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Statements outside the files; None is "not given". Sizes as typed, e.g. ``2TiB``."""

    model: str | Mapping[str, float] | None = _row(
        text, short="m", help="bundled name, path, module:factory, or params=7e9,..."
    )
    adapter: str | None = _row(
        text, metavar="LORA", help="adapter_config.json, or r=16,targets=all-linear"
    )
    quantization: str | None = _row(
        text,
        metavar="HOW",
        help="of the frozen base: nf4,double or int8; of inference's weights also gptq, awq, fp8",
    )
    freeze: tuple[str, ...] | None = _row(
        patterns,
        metavar="PATTERN",
        help="parameters that are not trained, e.g. '*.embed_tokens.*'; commas or repeated",
    )
    allow_code: bool | None = _row(
        bool, help="let a job YAML name a module:factory, which is imported and called"
    )

    instance: str | None = _row(
        text,
        _CLUSTER,
        metavar="TYPE",
        help="a cloud's machine, e.g. p4d.24xlarge: its GPUs, memory, drives and network",
    )
    nodes: int | None = _row(Whole(1_000_000), _CLUSTER, short="n", help="machines (1)")
    gpus_per_node: int | None = _row(
        Whole(1024), _CLUSTER, short="p", help="ranks of each machine (1)"
    )
    gpu: str | None = _row(text, _CLUSTER, short="g", metavar="NAME", help="see `zero-sizer gpus`")
    gpu_memory: str | None = _row(
        Size(64 * TIB), _CLUSTER, metavar="SIZE", help="instead of what the GPU shows"
    )
    host_memory: str | None = _row(
        _HOSTS, _CLUSTER, metavar="SIZE", help="RAM of a node, e.g. 2TiB, or 252G as free prints it"
    )
    nvme: str | None = _row(_HOSTS, _CLUSTER, metavar="SIZE", help="NVMe of a node")
    hostfile: str | None = _row(text, _CLUSTER, metavar="FILE", help="a DeepSpeed hostfile")

    cluster_profile: str | None = _row(
        text, _CLUSTER, metavar="FILE", help="what `zero-sizer calibrate` measured of the cluster"
    )

    task: str | None = _row(
        OneOf((TRAINING, INFERENCE)),
        _WORKLOAD,
        help="training (default), or inference: forward and generate",
        usual=Setting(TRAINING, "the default", is_default=True),
    )
    prompt: int | None = _row(
        Whole(_ANY), _WORKLOAD, group=INFERENCE, metavar="TOKENS", help="of each sequence"
    )
    new_tokens: int | None = _row(
        Whole(_ANY, lowest=0),
        _WORKLOAD,
        group=INFERENCE,
        metavar="TOKENS",
        help="generated for each; 0: one forward, with the logits of every position",
    )
    batch_size: int | None = _row(
        Whole(_ANY), _WORKLOAD, group=INFERENCE, metavar="SEQUENCES", help="that a GPU runs at once"
    )
    cache: str | None = _row(
        OneOf((DYNAMIC, STATIC)),
        _WORKLOAD,
        group=INFERENCE,
        help="transformers' DynamicCache, which grows (default), or StaticCache",
        usual=Setting(DYNAMIC, "generate()'s default", is_default=True),
    )
    tensor_parallel: int | None = _row(
        Whole(1_000_000),
        _WORKLOAD,
        group=INFERENCE,
        metavar="RANKS",
        help="that share each layer: init_inference's AutoTP, in fp16 unless --precision says more",
    )
    seq_len: int | str | None = _row(
        Whole(_ANY, thousand=TOKENS_OF_K),
        _WORKLOAD,
        short="s",
        metavar="TOKENS",
        help="of each sample, 4k is 4096 (2048, or the most that the model takes)",
    )
    images: Any = _row(
        images,
        _WORKLOAD,
        metavar="IMAGES",
        help="of each sample: how many, and pixels where they are free, e.g. 2,size=1344x896",
    )
    max_pixels: int | str | None = _row(
        pixels,
        _WORKLOAD,
        metavar="PIXELS",
        help="to which larger images are scaled down where sizes are free, e.g. 602112 or 768x784 "
        "(the processor's: 12845056, Qwen3-VL 16777216)",
    )
    min_pixels: int | str | None = _row(
        pixels,
        _WORKLOAD,
        metavar="PIXELS",
        help="to which smaller images are scaled up (the processor's: 3136, Qwen3-VL 65536)",
    )
    scaled_by: str | None = _row(
        OneOf((PROCESSOR, TRAINER)),
        _WORKLOAD,
        help="what scales images: the model's processor, or the trainer before it (LLaMA-Factory)",
    )
    audio_seconds: float | str | None = _row(
        Number(86400), _WORKLOAD, metavar="SECONDS", help="of each sample's recording"
    )
    target_len: int | None = _row(
        Whole(_ANY),
        _WORKLOAD,
        metavar="TOKENS",
        help="of an encoder-decoder's labels; --seq-len is the encoder's",
    )
    micro_batch: int | None = _row(
        Whole(_ANY),
        _WORKLOAD,
        short="b",
        metavar="SAMPLES",
        help='of a GPU at once, for "auto" or where the config has none',
        in_config=True,
    )
    grad_accum: int | None = _row(
        Whole(_ANY),
        _WORKLOAD,
        metavar="STEPS",
        help="gradient accumulation steps, likewise",
        in_config=True,
    )
    checkpointing: bool | str | None = _row(
        checkpointing, _WORKLOAD, help="activation checkpointing of every block (off)"
    )
    attention: str | None = _row(
        OneOf(("flash", "sdpa", "eager")), _WORKLOAD, help="its implementation (sdpa)"
    )
    attention_kernel: str | None = _row(
        OneOf(FLASH_KERNELS),
        _WORKLOAD,
        help="FlashAttention's generation, for the step time (flash-2)",
    )
    sequences: str | None = _row(
        OneOf(("equal", "padded", "packed")),
        _WORKLOAD,
        help="all of --seq-len, padded to it with a mask, or packed into it",
    )
    loss: str | None = _row(
        OneOf(("transformers", "transformers-16bit", "megatron", "fused", "fused-linear")),
        _WORKLOAD,
        help="what computes it: transformers (default), or before 4.46 with logits left in 16 bits "
        "(GPT-2, OPT, ...), Megatron, flash-attn (fused), or Liger (fused-linear)",
        usual=Setting("transformers", "the model's own", is_default=True),
    )
    kernels: str | None = _row(
        OneOf(("transformers", "liger")),
        _WORKLOAD,
        help="liger: the Trainer's use_liger_kernel, its loss and its other kernels",
    )
    num_workers: int | None = _row(
        Whole(1024, lowest=0),
        _WORKLOAD,
        metavar="N",
        help="of each rank's data loader (0)",
        usual=Setting(0, "torch's and the Trainer's default", is_default=True),
    )
    prefetch: int | None = _row(
        Whole(1024),
        _WORKLOAD,
        metavar="BATCHES",
        help="that each worker has ready (2)",
        usual=Setting(2, "torch's default", is_default=True),
    )
    precision: str | None = _row(
        OneOf(("bf16", "fp16", "fp32")), _WORKLOAD, help='for "auto"', in_config=True
    )
    optim: str | None = _row(
        optim,
        _WORKLOAD,
        metavar="NAME",
        help="of the Trainer where the config has no optimizer: adamw_torch, adamw_bnb_8bit, ...",
        usual=Setting("adamw_torch_fused", "the Trainer's default", is_default=True),
    )
    zero_init: bool | None = _row(
        yes_or_no,
        _WORKLOAD,
        help="whether the model is built under zero.Init (at stage 3 it is)",
        usual=Setting("at stage 3", "as the Hugging Face Trainer does", is_default=True),
    )
    loaded_on: str | None = _row(
        OneOf((workload.HOST, workload.GPU, workload.GPU_FP32)),
        _WORKLOAD,
        help="where the script loads the model to; gpu-fp32 casts what is trained there",
        usual=Setting(workload.HOST, "as the Hugging Face Trainer does", is_default=True),
    )

    deepspeed_version: str | None = _row(
        release,
        _WORKLOAD,
        metavar="VERSION",
        help="that will run the job, where it is an old one",
        usual=Setting("0.19", "the one that is modelled", is_default=True),
    )

    tokens: int | float | str | None = _row(
        Amount(10**18),
        _WORKLOAD,
        group=TRAINING_RUN,
        metavar="N",
        help="of the data, e.g. 300B or 1.5T",
    )
    samples: int | float | str | None = _row(
        Amount(10**15),
        _WORKLOAD,
        group=TRAINING_RUN,
        metavar="N",
        help="of the data, each of --seq-len tokens, e.g. 2M",
    )
    epochs: float | str | None = _row(
        Number(1e6, lowest=1e-3),
        _WORKLOAD,
        group=TRAINING_RUN,
        metavar="N",
        help="times that the data is gone through (1)",
    )
    start: "str | date | None" = _row(
        day, group=TRAINING_RUN, metavar="DAY", help="first day, as 2026-01-31 (today)"
    )
    rate: float | str | None = _row(
        Number(1e4),
        group=TRAINING_RUN,
        metavar="USD",
        help="price of a GPU-hour, instead of the published lists'",
    )
    rates: str | None = _row(
        text,
        group=TRAINING_RUN,
        metavar="FILE",
        help="YAML of usd_per_gpu_hour by GPU, pue, node_watts_over_gpus",
    )
    target_days: float | str | None = _row(
        Number(1e6), group=GOAL, metavar="DAYS", help="the most days that it may take"
    )
    budget: float | str | None = _row(
        Number(1e15), group=GOAL, metavar="USD", help="the most that it may cost"
    )


OPTIONS = tuple(Field(name=f.name, **f.metadata) for f in fields(Flags))
_BY_NAME = {option.name: option for option in OPTIONS}
FREEZE = _BY_NAME["freeze"]  # of the model; a job YAML says it with the workload
HOST_MEMORY = _BY_NAME["host_memory"]
START, RATE, TARGET_DAYS, BUDGET = (
    _BY_NAME[name] for name in ("start", "rate", "target_days", "budget")
)
RUN = tuple(option for option in OPTIONS if option.group in (TRAINING_RUN, GOAL))
WORKLOAD = tuple(option for option in OPTIONS if option.section == _WORKLOAD)
CLUSTER = (
    *(option for option in OPTIONS if option.section == _CLUSTER),
    *(Field(name=name, check=rate, section=_CLUSTER) for name in RATES),  # in a job YAML only
)
