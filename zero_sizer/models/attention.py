"""Which kinds of attention transformers' classes lack.

transformers 5.23: ``_supports_flash_attn`` and ``_supports_sdpa`` of each PreTrainedModel; held
equal to them by tests/checks/test_checks_forward.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

FLASH, SDPA, EAGER = "flash", "sdpa", "eager"
FLASH_KERNELS = ("flash-1", "flash-2", "flash-3")
"""Generations of FlashAttention, whose speed differs and whose memory does not."""

LACKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bloom": (FLASH, SDPA),
        "gemma2": (SDPA,),
        "gpt_oss": (SDPA,),
        "llama4": (FLASH,),
        "llama4_text": (FLASH,),
        "t5": (FLASH,),
    }
)
"""``model_type`` -> what it has not; the other families that are bundled have all three."""


def default(model_type: str) -> str:
    """Attention that transformers takes where nothing is asked for: sdpa, else eager."""
    return EAGER if SDPA in LACKS.get(model_type, ()) else SDPA


def supports(model_type: str, attention: str) -> bool:
    """True if transformers' class has this kind of attention."""
    return attention not in LACKS.get(model_type, ())


def fastest(model_type: str, precision: str) -> str:
    """Flash attention where the class has it and it is trained in bf16, else sdpa."""
    return FLASH if precision == "bf16" and supports(model_type, FLASH) else SDPA
