"""The config of ``deepspeed.init_inference``: which keys it has, and what they ask for.

Source: deepspeed 0.19.8 inference/config.py:118-300.
"""

from collections.abc import Mapping
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import did_you_mean, shown

_ALIASES = {
    "kernel_inject": "replace_with_kernel_inject",
    "tp": "tensor_parallel",
    "tm": "triangular_masking",
    "ckpt_config": "checkpoint_config",
    "injection_dict": "injection_policy",
    "args": "config",
    "max_tokens": "max_out_tokens",
    "min_tokens": "min_out_tokens",
}
_KEYS = frozenset(
    {
        *("replace_with_kernel_inject", "dtype", "tensor_parallel", "enable_cuda_graph"),
        *("use_triton", "triton_autotune", "zero", "triangular_masking", "moe"),
        *("keep_module_on_host", "quant", "checkpoint", "base_dir", "set_empty_params"),
        *("save_mp_checkpoint_path", "checkpoint_config", "return_tuple", "training_mp_size"),
        *("replace_method", "injection_policy", "injection_policy_tuple", "config"),
        *("max_out_tokens", "min_out_tokens", "transposed_mode", "mp_size", "mpu", "ep_size"),
        *("ep_group", "ep_mp_group", "moe_experts", "moe_type"),
    }
)
_OF_BOTH = frozenset({"tensor_parallel", "checkpoint", "zero"})
_OF_INITIALIZE = ("zero_optimization", "optimizer", "train_", "fp16", "bf16", "scheduler")
_DTYPES = {
    **dict.fromkeys(("fp32", "float32", "float", "torch.float32", "torch.float"), "fp32"),
    **dict.fromkeys(("fp16", "float16", "half", "torch.float16", "torch.half"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat16", "torch.bfloat16"), "bf16"),
    **dict.fromkeys(("int8", "torch.int8"), "int8"),
}


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Requests of a config of ``init_inference``.

    Attributes:
        dtype: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        says_dtype: whether it is written.
        tp_size: ranks that share the weights.
        grain: elements of which a rank's share of a feed-forward is a multiple.
        injects: kernels replace the model's own layers.
        keeps_on_host: the module stays in host memory.
    """

    dtype: str = "fp16"
    says_dtype: bool = False
    tp_size: int = 1
    grain: int = 64
    injects: bool = False
    keeps_on_host: bool = False


def is_inference_config(values: Mapping[str, Any]) -> bool:
    """True if a config is meant for ``init_inference`` rather than ``deepspeed.initialize``."""
    names = {_ALIASES.get(str(key), str(key)) for key in values}
    if any(name.startswith(_OF_INITIALIZE) for name in names):
        return False
    return bool(names & (_KEYS - _OF_BOTH)) or names == {"tensor_parallel"}


def read(document: Document) -> tuple[InferenceConfig | None, list[Finding]]:
    """The config; None where it is one of ``deepspeed.initialize`` or none at all."""
    if not is_inference_config(document.values):
        return None, []
    findings = [_unknown(document, str(key)) for key in document.values if _name(key) not in _KEYS]
    values = {_name(key): value for key, value in document.values.items()}
    dtype = _DTYPES.get(str(values.get("dtype", "fp16")).lower())
    if dtype is None:
        findings.append(_refused(document, "dtype", values["dtype"], "fp16, bf16, fp32 or int8"))
    parallel = values.get("tensor_parallel")
    size: Any = parallel.get("tp_size", 1) if isinstance(parallel, Mapping) else parallel
    size = values.get("mp_size", 1) if size is None else size
    if not _counts(size):
        findings.append(_refused(document, "tensor_parallel", size, "tp_size: 1 or more"))
        size = 1
    grain: Any = parallel.get("tp_grain_size", 64) if isinstance(parallel, Mapping) else 64
    if not _counts(grain):
        findings.append(_refused(document, "tensor_parallel", grain, "tp_grain_size: 1 or more"))
        grain = 64
    found = InferenceConfig(
        dtype=dtype or "fp16",
        says_dtype="dtype" in values and dtype is not None,
        tp_size=size,
        grain=grain,
        injects=values.get("replace_with_kernel_inject") is True,
        keeps_on_host=values.get("keep_module_on_host") is True,
    )
    return found, [*findings, *_not_modelled(document, found)]


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _name(key: object) -> str:
    return _ALIASES.get(str(key), str(key))


def _unknown(document: Document, key: str) -> Finding:
    return Finding(
        code="unknown-key",
        severity=Severity.ERROR,
        key=key,
        line=document.line(key),
        message="ValidationError: init_inference has no such key",
        remedy=did_you_mean(key, sorted(_KEYS)) or "take it out",
    )


def _refused(document: Document, key: str, value: Any, known: str) -> Finding:
    return Finding(
        code="wrong-type",
        severity=Severity.ERROR,
        key=key,
        line=document.line(key),
        message=f"ValidationError: {shown(value)} is not {known}",
        remedy=f"write {known}",
    )


def _not_modelled(document: Document, found: InferenceConfig) -> list[Finding]:
    def left_out(code: str, key: str, message: str, direction: Direction, remedy: str) -> Finding:
        return Finding(
            code=code,
            severity=Severity.WARNING,
            key=key,
            line=document.line(key),
            message=message,
            remedy=remedy,
            direction=direction,
        )

    findings = []
    if found.injects:
        findings.append(
            left_out(
                "kernel-injection-not-modelled",
                "replace_with_kernel_inject",
                "DeepSpeed's own kernels take a workspace of max_out_tokens for every layer, which "
                "is not counted, instead of a cache that grows, which is",
                Direction.EITHER,
                "leave it out: the families it knows are those of 2022",
            )
        )
    if found.dtype == "int8":
        findings.append(
            left_out(
                "int8-injection-not-modelled",
                "dtype",
                "int8 takes DeepSpeed's kernel injection: weights are counted in fp16",
                Direction.SAVE,
                "use --quantization int8 for bitsandbytes' weights",
            )
        )
    if found.keeps_on_host:
        findings.append(
            left_out(
                "module-on-host-not-modelled",
                "keep_module_on_host",
                "the weights stay in host memory, and are counted on the GPU",
                Direction.SAVE,
                "leave it out, or take stage 3 with offload_param",
            )
        )
    return findings
