"""Which kinds of attention transformers' classes lack.

transformers 5.23: ``_supports_flash_attn`` and ``_supports_sdpa`` of each PreTrainedModel; held
equal to them by tests/checks/test_checks_forward.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

FLASH, SDPA, EAGER = "flash", "sdpa", "eager"
FLASH_KERNELS = ("flash-1", "flash-2", "flash-3")
"""Generations of FlashAttention, whose speed differs and whose memory does not."""

_EAGER_ALONE = (
    *("big_bird", "bigbird_pegasus", "bloom", "codegen", "deberta", "deberta-v2", "funnel"),
    *("layoutlmv2", "layoutlmv3", "led", "longformer", "longt5", "mpnet", "mpt", "openai-gpt"),
    *("rembert", "roformer", "swinv2", "switch_transformers", "tapas"),
    *("wavlm", "xglm", "xlm", "xlnet"),
)
_NO_FLASH = (
    *("beit", "deepseek_v32", "glm_moe_dsa", "layoutlm", "llama4", "llama4_text"),
    *("mllama", "mt5", "siglip2", "swin", "t5", "umt5", "wav2vec2-bert", "wav2vec2-conformer"),
)
_NO_SDPA = ("gemma2", "gpt_neo", "gpt_oss", "gptj", "t5gemma", "vaultgemma")

LACKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(_EAGER_ALONE, (FLASH, SDPA)),
        **dict.fromkeys(_NO_FLASH, (FLASH,)),
        **dict.fromkeys(_NO_SDPA, (SDPA,)),
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
