"""What a child process is asked to run: plain values, JSON in and out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import Any

from zero_sizer.simulator.device import NO_LIMIT
from zero_sizer.util.records import dataclass

DEFAULT_OPTIMIZER = "adamw_torch_fused"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One rank of one job.

    Attributes:
        config: the DeepSpeed config, every "auto" filled.
        hf_config: a Hugging Face config's fields; the model is built from transformers' class.
        factory: ``module:function`` returning the model, where there is no ``hf_config``.
        parameters: tensors of a stand-in model, where only shapes are known.
        rank: global rank to be.
        world_size: ranks of the job.
        local_world_size: ranks of a node.
        gpu: its name in the GPU table, or empty.
        gpu_bytes: memory of a GPU; what DeepSpeed sees as ``total_memory``.
        outside_bytes: what others take of it, least and most.
        blas_bytes: workspace that PyTorch gives cuBLAS in each thread; 0 where no GPU is named.
        host_bytes: memory of a node, for the percentage in DeepSpeed's log lines.
        micro_batch: samples of a micro step.
        grad_accum: micro steps of an optimizer step.
        seq_len: tokens of a sample.
        checkpointing: activation checkpointing.
        checkpointing_how: fields of ``config.workload.Checkpointing`` that are not default.
        attention: ``flash``, ``sdpa`` or ``eager``.
        sequences: ``equal``, ``padded`` or ``packed``; the latter two bring a mask, but for flash.
        zero_init: the model is built under ``deepspeed.zero.Init``.
        built_dtype: dtype of a model built on the host; its config's own where empty.
        optimizer: the client's optimizer where the config has none: a name of transformers'
            ``OptimizerNames``.
        lora: ``peft.LoraConfig`` arguments; the base model is then frozen.
        freeze: patterns of parameters that are not trained.
        quantization: ``Quantization.to_json`` and ``modules``, the names of the layers.
        steps: optimizer steps; the first allocates the states, so at least two show the peak.
        keep_events: keep every allocation and free.
        short_loops: shorten DeepSpeed's loops over all ranks.
        notes: every way in which the run differs from the job.
    """

    config: Mapping[str, Any]
    hf_config: Mapping[str, Any] = field(default_factory=dict)
    factory: str = ""
    parameters: Sequence[Mapping[str, Any]] = ()
    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    gpu: str = ""
    gpu_bytes: int = NO_LIMIT
    outside_bytes: tuple[int, int] = (0, 0)
    blas_bytes: int = 0
    host_bytes: int = 0
    micro_batch: int = 1
    grad_accum: int = 1
    seq_len: int = 1
    checkpointing: bool = False
    checkpointing_how: Mapping[str, Any] = field(default_factory=dict)
    attention: str = "flash"
    sequences: str = "equal"
    zero_init: bool = False
    built_dtype: str = ""
    optimizer: str = DEFAULT_OPTIMIZER
    lora: Mapping[str, Any] | None = None
    freeze: tuple[str, ...] = ()
    quantization: Mapping[str, Any] | None = None
    steps: int = 2
    keep_events: bool = False
    short_loops: bool = True
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The request as JSON values."""
        return asdict(self)

    @staticmethod
    def list_from_json(text: str) -> "list[Request]":
        """The requests of a JSON list."""
        return [Request(**fields) for fields in json.loads(text)]
