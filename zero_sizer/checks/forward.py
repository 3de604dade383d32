"""Refusals of the model's forward: sequences beyond its positions, attention it cannot run."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import Context, Rule, left_out
from zero_sizer.findings import Direction, Finding
from zero_sizer.models import attention
from zero_sizer.models.positions import longest_sequence
from zero_sizer.plan.resolve import hf_dtype
from zero_sizer.units import DType

_SEQ_LEN, _ATTENTION, _KERNEL = "--seq-len", "--attention", "--attention-kernel"
_WIDEST_HEAD = 256
_HOPPER = 9
_AMPERE = (8, 0)
_TURING = (7, 5)
_VOLTA = (7, 0)


def sequence_length(context: Context) -> Iterator[Finding]:
    """An index past the end of the table; of BERT's kin, shapes that do not add up.

    What a module that is not transformers' does with its table is a guess.
    """
    seq_len = context.workload.seq_len
    limit = None if context.model is None else longest_sequence(context.model)
    if limit is None or seq_len is None or seq_len <= limit or context.model is None:
        return
    say = context.error if context.model.hf_config else context.warning
    yield say(
        "sequence-too-long",
        _SEQ_LEN,
        f"IndexError or RuntimeError in the first forward (on a GPU a device-side assert): "
        f"{_stated(context, 'seq_len', _SEQ_LEN)}{seq_len:,} tokens, and the table of positions of "
        f"{context.model.name} has {limit:,} ({_limit_key(context)})",
        f"give at most {limit:,}, or take a model with rotary positions",
    )


def beyond_training(context: Context) -> Iterator[Finding]:
    """Rotary positions have no end; max_position_embeddings says how far they were trained."""
    model, seq_len = context.model, context.workload.seq_len
    trained = model.arch.max_positions if model is not None else None
    if model is None or not trained or not seq_len or seq_len <= trained:
        return
    if longest_sequence(model) is None:
        yield context.note(
            "sequence-beyond-training",
            _SEQ_LEN,
            f"{_stated(context, 'seq_len', _SEQ_LEN)}{seq_len:,} tokens, and the config of "
            f"{model.name} names {trained:,} (max_position_embeddings): it runs, on positions it "
            "was not trained with",
            "rope_scaling in the config.json is the usual way to stretch them",
        )


def _limit_key(context: Context) -> str:
    fields = context.model.hf_config if context.model else {}
    known = ("n_positions", "max_position_embeddings")
    return next((key for key in known if key in fields), "its rows")


def _stated(context: Context, name: str, flag: str) -> str:
    """Where the value was stated, unless the key of the finding says so already."""
    origin = context.workload.origins.get(name, flag)
    return "" if origin == flag else f"{origin} says "


def attention_of_class(context: Context) -> Iterator[Finding]:
    """transformers modeling_utils.py:1592, 1665."""
    asked, model = context.workload.attention, context.model
    if model is None or not model.hf_config or asked is None:
        return
    family = model.arch.family
    if asked not in attention.LACKS.get(family, ()):
        return
    has = attention.default(family)
    say = context.error if asked == attention.FLASH else context.warning
    reason = f"ValueError: transformers' {family} has no {asked} attention"
    yield say(
        "attention-not-there", _ATTENTION, f"{reason}; {has} is counted", f"say --attention {has}"
    )


def flash_in_fp32(context: Context) -> Iterator[Finding]:
    """flash-attn 2 (flash_api.cpp: mha_fwd) takes fp16 and bf16 only; transformers casts nothing.

    transformers integrations/flash_attention.py:12: but under autocast, or to the weights' dtype.
    """
    model = context.model
    if context.workload.attention != attention.FLASH or engine.model_dtype(context) != "fp32":
        return
    is_packed = model is not None and model.quantization is not None
    if is_packed or context.flag("torch_autocast.enabled"):
        return
    message = "RuntimeError: flash attention takes fp16 and bf16 only, and this is fp32 training"
    remedy = "enable bf16 (or torch_autocast), or take sdpa"
    if _may_load_16_bit(context):
        yield context.warning(
            "flash-fp32", _ATTENTION, f"{message}, unless the script loads 16-bit weights", remedy
        )
    else:
        yield context.error("flash-fp32", _ATTENTION, message, remedy)


def _may_load_16_bit(context: Context) -> bool:
    """Without fp16 or bf16 the engine casts nothing: what was loaded is what runs."""
    if context.model is None or context.stage == 3 or context.workload.zero_init:
        return False
    return hf_dtype(context.model) in (DType.BF16, DType.FP16)


def flash_head_size(context: Context) -> Iterator[Finding]:
    """flash-attn 2 (flash_api.cpp: mha_fwd, mha_bwd)."""
    width = None if context.model is None else context.model.arch.head_dim
    if context.workload.attention == attention.FLASH and width and width > _WIDEST_HEAD:
        yield context.error(
            "flash-head-size",
            _ATTENTION,
            f"RuntimeError: flash attention takes heads of at most {_WIDEST_HEAD}, and these have "
            f"{width}",
            "take sdpa",
        )


def flash_on_older_gpu(context: Context) -> Iterator[Finding]:
    """flash-attn 2 (flash_api.cpp: mha_fwd) checks the compute capability."""
    gpu, stated = context.cluster.gpu, context.workload
    if stated.attention != attention.FLASH or gpu is None or gpu.compute_capability is None:
        return
    needs = _TURING if stated.attention_kernel == "flash-1" else _AMPERE
    if gpu.compute_capability < needs:
        name = "a Turing" if needs == _TURING else "an Ampere"
        yield context.error(
            "flash-gpu",
            _ATTENTION,
            f"RuntimeError: flash attention needs {name} GPU or newer (compute capability "
            f"{_dotted(needs)}), and {gpu.name} has {_dotted(gpu.compute_capability)}",
            "take sdpa",
        )


def flash_kernel_elsewhere(context: Context) -> Iterator[Finding]:
    """FlashAttention-3 is written for Hopper (its README: H100 and H800).

    transformers 5.23 modeling_flash_attention_utils.py:144 refuses what is older alone.
    """
    gpu, kernel = context.cluster.gpu, context.workload.attention_kernel
    if kernel is None:
        return
    kind = context.workload.attention
    if kind not in (None, attention.FLASH):
        yield context.warning(
            "flash-kernel-unused",
            _KERNEL,
            f"{kernel} is a kernel of flash attention, and --attention is {kind}: it says nothing",
            "leave it out, or say --attention flash",
        )
        return
    if kernel != "flash-3" or gpu is None or (gpu.compute_capability or (0, 0))[0] == _HOPPER:
        return
    has = "is an AMD GPU" if gpu.compute_capability is None else ""
    has = has or f"has compute capability {_dotted(gpu.compute_capability or (0, 0))}"
    is_newer = (gpu.compute_capability or (0, 0))[0] > _HOPPER
    yield context.error(
        "flash-kernel-gpu",
        _KERNEL,
        f"{'no kernel image' if is_newer else 'ImportError'}: FlashAttention-3 runs on Hopper "
        f"alone (H100, H200; compute capability 9.0), and {gpu.name} {has}",
        "say --attention-kernel flash-2, or leave it out",
    )


def sdpa_on_older_gpu(context: Context) -> Iterator[Finding]:
    """torch ATen/native/transformers/cuda/sdp_utils.cpp: fused kernels take bf16 from 8.0 on."""
    gpu, model = context.cluster.gpu, context.model
    if gpu is None or gpu.compute_capability is None or gpu.compute_capability >= _AMPERE:
        return
    usual = attention.default(model.arch.family if model is not None else "")
    if (context.workload.attention or usual) != attention.SDPA or not _runs_in_bf16(context):
        return
    finding = context.warning(
        "sdpa-not-modelled",
        _ATTENTION,
        f"on a {gpu.name} torch has no fused sdpa for bf16: the plain one keeps every head's "
        "scores, in fp32 for a while, and they are not counted",
        "see what --attention eager takes"
        if gpu.compute_capability < _VOLTA
        else "enable fp16 (bf16 is emulated there anyway), or see what --attention eager takes",
    )
    yield left_out(finding, Direction.COST)


def _runs_in_bf16(context: Context) -> bool:
    autocast = context.flag("torch_autocast.enabled")
    named = engine.dtype_named(context, "torch_autocast.dtype")
    return engine.model_dtype(context) == "bf16" or (autocast and named == "bf16")


def dtype_on_older_gpu(context: Context) -> Iterator[Finding]:
    """accelerator/cuda_accelerator.py:204-222; engine.py:2002; torch/cuda/__init__.py:191."""
    gpu = context.cluster.gpu
    if gpu is None or gpu.compute_capability is None:
        return
    dtype, has = engine.model_dtype(context), gpu.compute_capability
    if dtype == "fp16" and has < _VOLTA:
        yield context.error(
            "fp16-gpu",
            "fp16.enabled",
            f"ValueError: DeepSpeed takes fp16 from compute capability 7.0 on, and {gpu.name} has "
            f"{_dotted(has)}",
            "set DS_ALLOW_DEPRECATED_FP16=1, or train in fp32",
        )
    elif dtype == "bf16" and has < _AMPERE:
        yield context.warning(
            "bf16-gpu",
            "bf16.enabled",
            f"{gpu.name} has no bf16 units: torch emulates bf16 there, without tensor cores",
            "enable fp16 instead" if has >= _VOLTA else "train in fp32",
        )


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


RULES: tuple[Rule, ...] = (
    sequence_length,
    beyond_training,
    attention_of_class,
    flash_in_fp32,
    flash_head_size,
    flash_on_older_gpu,
    flash_kernel_elsewhere,
    sdpa_on_older_gpu,
    dtype_on_older_gpu,
)
