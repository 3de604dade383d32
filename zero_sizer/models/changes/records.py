"""Records of a LoRA adapter, a quantization and frozen parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from fnmatch import fnmatchcase
from typing import Any

from zero_sizer.units import DType
from zero_sizer.util.records import dataclass

ALL_LINEAR = "all-linear"
BITSANDBYTES, GPTQ, AWQ, FP8 = "bitsandbytes", "gptq", "awq", "fp8"


_NOT_PEFT = ("origin", "excluded_by")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Frozen base weights and small trainable matrices beside them (arXiv:2106.09685).

    Fields are those of ``peft.LoraConfig`` (0.21.2), with its defaults.

    Attributes:
        r: rank.
        target_modules: names (ends of qualified names), a regular expression, ``all-linear``, or
            None for peft's choice for the model's family.
        exclude_modules: names or a regular expression.
        layers_to_transform: indices of the only layers to adapt; empty means all.
        layers_pattern: names of the lists that those indices count.
        rank_pattern: end of a name (a regular expression) -> another rank.
        modules_to_save: ends of names of modules that are copied and trained whole.
        bias: which of the base's biases are trained: ``none``, ``all`` or ``lora_only``.
        lora_bias: whether the second matrix has a bias.
        lora_alpha: scale; changes no byte.
        lora_dropout: probability; above 0 a mask and a copy of the input are kept.
        use_dora: weight-decomposed: a magnitude vector for each adapted weight.
        origin: where it was named.
        excluded_by: where a tool's switches exclude modules; empty where the adapter itself does.
    """

    r: int = 8
    target_modules: tuple[str, ...] | str | None = None
    exclude_modules: tuple[str, ...] | str = ()
    layers_to_transform: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    modules_to_save: tuple[str, ...] = ()
    bias: str = "none"
    lora_bias: bool = False
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    use_dora: bool = False
    origin: str = ""
    excluded_by: str = ""

    def to_peft(self) -> dict[str, Any]:
        """Arguments of ``peft.LoraConfig``, as JSON values."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_PEFT}
        lists = {name: list(v) for name, v in known.items() if isinstance(v, tuple)}
        known |= {name: value or None for name, value in lists.items()}
        return {**known, "rank_pattern": dict(self.rank_pattern)}

    def describe(self) -> str:
        """The adapter in a few words."""
        targets = self.target_modules
        named = "+".join(targets) if isinstance(targets, tuple) else targets or "peft's choice"
        return f"LoRA r={self.r} on {named}"


@dataclass(frozen=True, kw_only=True)
class GroupCodes:
    """DeepSpeed's own codes of weights, with a scale and a least value of each group.

    Attributes:
        bits: 4 or 8.
        size: weights of a group.
        dimension: along which they follow one another.
    """

    bits: int
    size: int
    dimension: int


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How base weights are stored.

    Attributes:
        bits: 4 (``nf4`` and ``fp4`` take the same bytes) or 8 (LLM.int8).
        double: whether the statistics are quantized too (4 bits).
        storage: dtype that the 4-bit codes are packed into (``bnb_4bit_quant_storage``).
        compute: dtype that weights are unpacked to for a product (``bnb_4bit_compute_dtype``).
        skipped: patterns of modules that are left alone; None for transformers' choice.
        origin: where it was said.
        method: ``bitsandbytes``, or for inference only ``gptq``, ``awq`` or ``fp8``.
        group: weights of a column that share a scale (GPTQ, AWQ; 0: all of them), or the side of
            a block that does (fp8).
    """

    method: str = BITSANDBYTES
    group: int = 0
    bits: int
    double: bool = False
    storage: DType = DType.UINT8
    compute: DType = DType.FP32
    skipped: tuple[str, ...] | None = None
    origin: str = ""

    def describe(self) -> str:
        """The quantization in a few words."""
        if self.method == FP8:
            return "in fp8"
        if self.method != BITSANDBYTES:
            return f"in {self.bits} bits by {self.method.upper()}"
        if self.bits == 8:
            return "in 8 bits"
        return "in 4 bits, statistics in 8" if self.double else "in 4 bits"

    def to_json(self) -> dict[str, Any]:
        """Fields that a witness's stand-in layers need."""
        return {
            "bits": self.bits,
            "double": self.double,
            "storage": self.storage.value,
            "compute": self.compute.value,
        }


@dataclass(frozen=True, slots=True)
class Freeze:
    """Patterns of parameters without a gradient.

    Attributes:
        patterns: as a shell's (``*``, ``?``, ``[a-z]``), over whole names of parameters or of
            modules around them.
        origin: where they were said.
    """

    patterns: tuple[str, ...]
    origin: str = ""

    @property
    def is_of_a_tool(self) -> bool:
        """True if switches of a tool's file (``freeze_vit``) say them, not the user's patterns."""
        return self.origin.startswith("freeze_")

    def takes(self, name: str) -> bool:
        """True if the parameter ``name`` is frozen."""
        return any(matches(pattern, name) for pattern in self.patterns)


def matches(pattern: str, name: str) -> bool:
    """True if the pattern is the parameter's name, or that of a module around it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
