"""Workload: batch, sequence, checkpointing, attention, amount: what the config cannot say."""

from dataclasses import field

from zero_sizer.models.feeds.records import Images, Said
from zero_sizer.util.records import dataclass

LIGER_KERNELS, OWN_KERNELS = "liger", "transformers"
TRAINING, INFERENCE = "training", "inference"
DYNAMIC, STATIC = "dynamic", "static"
NON_REENTRANT, REENTRANT, DEEPSPEED = "non-reentrant", "reentrant", "deepspeed"


@dataclass(frozen=True, kw_only=True)
class Checkpointing:
    """Which blocks are recomputed, and by what.

    Attributes:
        every: every k-th block, the first included; 1 means all (transformers' every_n_layers).
        first: only so many, from the first on; None means all.
        offload: the inputs wait in pinned host memory (transformers' ``offload``).
        by: ``non-reentrant`` (torch's, transformers' default), ``reentrant`` (torch's with
            use_reentrant=True) or ``deepspeed`` (the model calls deepspeed.checkpointing).
    """

    every: int = 1
    first: int | None = None
    offload: bool = False
    by: str = NON_REENTRANT

    def recomputes(self, block: int) -> bool:
        """True if block number ``block`` is checkpointed; all stacks are counted through."""
        return block % self.every == 0 and (self.first is None or block < self.first)

    @property
    def takes_all(self) -> bool:
        """True if every block is checkpointed."""
        return self.every == 1 and self.first is None

    @property
    def about(self) -> str:
        """In the words of ``--checkpointing-how``; empty for the plain kind."""
        words = [
            f"every-{self.every}" if self.every > 1 else "",
            f"first-{self.first}" if self.first is not None else "",
            "offload" if self.offload else "",
            self.by if self.by != NON_REENTRANT else "",
        ]
        return ",".join(word for word in words if word)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The training loop around DeepSpeed.

    None means "not stated": the resolver then takes it from the config or says it is missing.

    Attributes:
        micro_batch: samples per GPU and micro step (``--micro-batch``).
        grad_accum: micro steps per optimizer step (``--grad-accum``).
        seq_len: tokens per sample (``--seq-len``).
        images: of each sample, where the model sees (``--images``).
        max_pixels: of an image, to which larger ones are scaled down.
        min_pixels: of an image, to which smaller ones are scaled up.
        scaled_by: what scales them: the model's ``processor`` (None too), or the ``trainer``
            before it, whose images the processor then rounds.
        audio_seconds: of each sample's recording, where it hears.
        target_len: tokens of an encoder-decoder's labels (None: as many as ``seq_len``).
        checkpointing: activation checkpointing, None when not stated.
        checkpointing_how: of which blocks and by what, where it is on.
        attention: ``flash``, ``sdpa`` or ``eager``.
        attention_kernel: generation of FlashAttention, for the step time alone.
        sequences: ``equal`` (all of ``seq_len``), ``padded`` to it, or ``packed`` into it.
        loss: what computes it: ``transformers`` (None too), ``transformers-16bit`` (before 4.46),
            ``megatron``, ``fused`` (flash-attn's cross entropy) or ``fused-linear`` (Liger's,
            without whole logits).
        kernels: ``liger`` (the Trainer's ``use_liger_kernel``: its loss, RMSNorm, SwiGLU and rotary
            embedding) or ``transformers`` (none of them).
        num_workers: processes of each rank's data loader (None: 0, torch's and the Trainer's).
        prefetch: batches that each of them has ready (None: 2, torch's).
        zero_init: the model is built under ``deepspeed.zero.Init`` (None: as the Hugging Face
            Trainer does, so exactly at stage 3).
        loaded_on: where the script puts the model before DeepSpeed takes it: ``host`` (None too),
            ``gpu`` (a ``device_map`` of the rank's own, in the training dtype), or ``gpu-fp32``,
            which casts what is trained to fp32 there; the same under ``zero.Init``.
        precision: ``bf16``, ``fp16`` or ``fp32`` as the Trainer's own flags say, for the config's
            "auto" (``--precision``).
        optim: the optimizer that the Trainer brings where the config has none, by its own name
            (``adamw_torch_fused``, ``adamw_bnb_8bit``, ...; None: its default).
        deepspeed_version: of the engine that will run the job (None: the modelled one).
        tokens: of the data that is trained on (``--tokens``).
        samples: of the data, each of ``seq_len`` tokens, where its tokens are not stated.
        epochs: times that the data is gone through (None: once).
        task: ``training`` (None too) or ``inference``.
        prompt: tokens of each sequence that inference begins with (``--prompt``).
        new_tokens: that it generates for each; 0 is one forward, with every position's logits.
        batch_size: sequences that a GPU runs at once.
        cache: ``dynamic`` (None too), which grows token by token, or ``static``.
        tensor_parallel: ranks that ``deepspeed.init_inference`` cuts the layers over.
        origins: field name -> where its value comes from.
    """

    task: str | None = None
    prompt: int | None = None
    new_tokens: int | None = None
    batch_size: int | None = None
    cache: str | None = None
    tensor_parallel: int | None = None

    micro_batch: int | None = None
    grad_accum: int | None = None
    seq_len: int | None = None
    images: Images | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None
    scaled_by: str | None = None
    audio_seconds: float | None = None
    target_len: int | None = None
    checkpointing: bool | None = None
    checkpointing_how: Checkpointing = Checkpointing()
    attention: str | None = None
    attention_kernel: str | None = None
    sequences: str | None = None
    loss: str | None = None
    kernels: str | None = None
    num_workers: int | None = None
    prefetch: int | None = None
    zero_init: bool | None = None
    loaded_on: str | None = None
    precision: str | None = None
    optim: str | None = None
    deepspeed_version: str | None = None
    tokens: int | None = None
    samples: int | None = None
    epochs: float | None = None
    origins: dict[str, str] = field(default_factory=dict)

    @property
    def said(self) -> Said:
        """Statements about one sample, for ``models.feeds``."""
        return Said(
            images=self.images,
            max_pixels=self.max_pixels,
            min_pixels=self.min_pixels,
            scaled_by=self.scaled_by,
            audio_seconds=self.audio_seconds,
            target_len=self.target_len,
        )


HOST, GPU, GPU_FP32 = "host", "gpu", "gpu-fp32"
TRANSFORMERS, SIXTEEN_BITS = "transformers", "transformers-16bit"


MEGATRON, FUSED, FUSED_LINEAR = "megatron", "fused", "fused-linear"


CASTS = (SIXTEEN_BITS, FUSED_LINEAR)  # otherwise under torch_autocast


# Causal families that Liger 0.8.5 patches (transformers/monkey_patch.py), of those known here.
LIGER = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "phi3"),
        *("gemma", "gemma2", "deepseek_v3"),
    }
)
