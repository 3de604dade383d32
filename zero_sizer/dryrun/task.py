"""Tasks of the engine as plain values, JSON in and out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import Any, Self

from zero_sizer.errors import InputError
from zero_sizer.util.records import dataclass

DEFAULT_OPTIMIZER = "adamw_torch_fused"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run of the engine, simulated or real.

    The model is one of three: ``hf_config``, ``factory`` or ``parameters``.

    Attributes:
        config: the DeepSpeed config, every "auto" filled.
        hf_config: a Hugging Face config's fields; the model is built from transformers' class.
        factory: ``module:function`` returning the model.
        parameters: tensors of a stand-in model, where only shapes are known.
        vocab: tokens are below it; 0 where nothing says so.
        lora: ``peft.LoraConfig`` arguments; the base model is then frozen.
        freeze: patterns of parameters that are not trained.
        quantization: ``Quantization.to_json`` and ``modules``, the names of the layers.
        micro_batch: samples of a micro step.
        grad_accum: micro steps of an optimizer step.
        seq_len: tokens of a sample.
        feed: ``Feed.to_json`` of what a sample brings; None: token ids and labels.
        checkpointing: activation checkpointing.
        checkpointing_how: fields of ``config.workload.Checkpointing`` that are not default.
        attention: ``flash``, ``sdpa`` or ``eager``.
        sequences: ``equal``, ``padded`` or ``packed``; the latter two bring a mask, but for flash.
        zero_init: the model is built under ``deepspeed.zero.Init``.
        built_dtype: dtype of a model built on the host; its config's own where empty.
        optimizer: the client's optimizer where the config has none: a name of transformers'
            ``OptimizerNames``.
        steps: optimizer steps; the first allocates the states, so at least two show the peak.
        peak: real ranks on a CPU follow every storage, for peaks and activations.
        walk: real ranks list live tensors that no part of the engine owns.
        new_tokens: of inference; None where the model is trained. 0 is one forward.
        cache: ``dynamic`` or ``static``, of inference.
        notes: every way in which the run differs from the job.
    """

    config: Mapping[str, Any]
    hf_config: Mapping[str, Any] = field(default_factory=dict)
    factory: str = ""
    parameters: Sequence[Mapping[str, Any]] = ()
    vocab: int = 0
    lora: Mapping[str, Any] | None = None
    freeze: tuple[str, ...] = ()
    quantization: Mapping[str, Any] | None = None
    micro_batch: int = 1
    grad_accum: int = 1
    seq_len: int = 1
    feed: Mapping[str, Any] | None = None
    checkpointing: bool = False
    checkpointing_how: Mapping[str, Any] = field(default_factory=dict)
    attention: str = "flash"
    sequences: str = "equal"
    zero_init: bool = False
    built_dtype: str = ""
    optimizer: str = DEFAULT_OPTIMIZER
    steps: int = 2
    peak: bool = True
    walk: bool = True
    new_tokens: int | None = None
    cache: str = "dynamic"
    notes: Sequence[str] = ()

    @property
    def num_phases(self) -> int:
        """Phases of a whole run: init, then those of every micro step or request."""
        if self.new_tokens is None:
            return 1 + 3 * self.steps * self.grad_accum
        return 1 + (2 if self.new_tokens > 1 else 1) * self.steps

    def to_json(self) -> dict[str, Any]:
        """The task as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The task of its JSON values."""
        return cls(**values)


def require_rank(rank: int, world_size: int) -> None:
    """Refuses a rank that the job does not have.

    Raises:
        InputError: there is no such rank.
    """
    if not 0 <= rank < world_size:
        raise InputError(f"there is no rank {rank} among {world_size}")
