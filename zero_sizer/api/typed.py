"""Keywords of the questions for type checkers and editors; a test holds them to the flags."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TypedDict


class JobKeywords(TypedDict, total=False):
    """Keywords about a job and its training run."""

    model: str | Mapping[str, float] | None
    adapter: str | None
    quantization: str | None
    freeze: Sequence[str] | None
    allow_code: bool | None
    instance: str | None
    gpus_per_node: int | None
    gpu: str | None
    gpu_memory: int | str | None
    host_memory: int | str | None
    nvme: int | str | None
    hostfile: str | None
    cluster_profile: str | None
    task: str | None
    prompt: int | None
    new_tokens: int | None
    batch_size: int | None
    cache: str | None
    tensor_parallel: int | None
    seq_len: int | None
    images: Mapping[str, int | str] | int | str | None
    max_pixels: int | str | None
    min_pixels: int | str | None
    scaled_by: str | None
    audio_seconds: float | str | None
    target_len: int | None
    micro_batch: int | None
    grad_accum: int | None
    checkpointing: bool | str | None
    checkpointing_how: str | None
    attention: str | None
    attention_kernel: str | None
    sequences: str | None
    loss: str | None
    kernels: str | None
    num_workers: int | None
    prefetch: int | None
    precision: str | None
    optim: str | None
    zero_init: bool | None
    loaded_on: str | None
    deepspeed_version: str | None
    tokens: int | float | str | None
    samples: int | float | str | None
    epochs: float | str | None
    start: str | date | None
    rate: float | str | None
    rates: str | None


class CheckKeywords(JobKeywords, total=False):
    """Keywords of ``check``."""

    nodes: int | None
    timeline: bool


class GoalKeywords(JobKeywords, total=False):
    """Keywords that ``choose`` and ``size`` share."""

    target_days: float | str | None
    budget: float | str | None
    train_batch_size: int | None
    margin: float | None


class PlanKeywords(GoalKeywords, total=False):
    """Keywords of ``choose`` for the fastest plan."""

    nodes: int | None


class SizeKeywords(GoalKeywords, total=False):
    """Keywords of ``size``."""

    max_nodes: int
    fewest: str
    target_tokens_per_second: float | None
