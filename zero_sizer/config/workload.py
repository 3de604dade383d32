"""What the files cannot say: batch, sequence, checkpointing, attention."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The training loop around DeepSpeed.

    None means "not stated": the resolver then takes it from the config or says it is missing.

    Attributes:
        micro_batch: samples per GPU and micro step (``--micro-batch``).
        grad_accum: micro steps per optimizer step (``--grad-accum``).
        seq_len: tokens per sample (``--seq-len``).
        checkpointing: activation checkpointing over every block, None when not stated.
        attention: ``flash``, ``sdpa`` or ``eager``.
        zero_init: the model is built under ``deepspeed.zero.Init`` (None: as the Hugging Face
            Trainer does, so exactly at stage 3).
        precision: ``bf16``, ``fp16`` or ``fp32`` as the Trainer's own flags say, for the config's
            "auto" (``--precision``).
        origins: field name -> where its value comes from.
    """

    micro_batch: int | None = None
    grad_accum: int | None = None
    seq_len: int | None = None
    checkpointing: bool | None = None
    attention: str | None = None
    zero_init: bool | None = None
    precision: str | None = None
    origins: dict[str, str] = field(default_factory=dict)
