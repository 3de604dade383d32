"""The families of Hugging Face models whose tensors we lay out ourselves.

Held equal to transformers' own classes, name by name and shape by shape, by
tests/models/test_models_hf_config.py.
"""

from collections.abc import Mapping
from types import MappingProxyType

from zero_sizer.models.layouts.language import Block
from zero_sizer.models.layouts.llama import (
    DEEPSEEK_LAYER,
    DENSE,
    EXPERTS,
    GEMMA2_NORMS,
    MLP,
    NORMS,
    PHI3_LAYER,
    QK_NORM,
    QKVO,
    SCALED,
    decoder,
)
from zero_sizer.models.layouts.mixed import (
    DEEPSEEK_V2,
    GEMMA3,
    GLM4_MOE,
    GPT_OSS,
    LLAMA4,
    QWEN3_NEXT,
)
from zero_sizer.models.layouts.older import BERT, BLOOM, FALCON, GPT2, GPT_NEOX, OPT, PHI, T5
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """One ``model_type``.

    Attributes:
        class_prefix: what its class names start with.
        head: the class that is trained where the config names none.
        base: the class without a head.
        base_prefix: what the base class's names lack.
        blocks: the layout of ``head``.
        hidden_key: the field that holds the hidden size.
        divides: hidden must be a multiple of the heads, or transformers refuses.
        padding_idx: the embedding is built with ``pad_token_id``, which must lie in it.
        heads_known: further class names that the layout covers.
    """

    class_prefix: str
    head: str
    base: str
    base_prefix: str = "model."
    blocks: tuple[Block, ...]
    hidden_key: str = "hidden_size"
    divides: bool = False
    padding_idx: bool = True
    heads_known: tuple[str, ...] = ()


def _causal(prefix: str, blocks: tuple[Block, ...], *, divides: bool = False) -> Family:
    return Family(
        class_prefix=prefix,
        head=f"{prefix}ForCausalLM",
        base=f"{prefix}Model",
        blocks=blocks,
        divides=divides,
    )


def _older(prefix: str, blocks: tuple[Block, ...], base_prefix: str) -> Family:
    return Family(
        class_prefix=prefix,
        head=f"{prefix}ForCausalLM",
        base=f"{prefix}Model",
        base_prefix=base_prefix,
        blocks=blocks,
        divides=True,
        padding_idx=False,
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _causal("Llama", DENSE, divides=True),
        "mistral": _causal("Mistral", DENSE),
        "qwen2": _causal("Qwen2", DENSE),
        "qwen3": _causal("Qwen3", decoder(QKVO + QK_NORM + MLP + NORMS)),
        "mixtral": _causal(
            "Mixtral",
            decoder(
                QKVO
                + "model.layers.{i}.mlp.gate {C}TopKRouter weight=experts,hidden\n"
                + EXPERTS
                + NORMS
            ),
        ),
        "qwen3_moe": _causal(
            "Qwen3Moe",
            decoder(
                QKVO
                + QK_NORM
                + MLP
                + EXPERTS
                + "model.layers.{i}.mlp.gate {C}TopKRouter weight=experts,hidden ?sparse\n"
                + NORMS
            ),
        ),
        "deepseek_v2": _causal("DeepseekV2", DEEPSEEK_V2, divides=True),
        "deepseek_v3": _causal("DeepseekV3", decoder(DEEPSEEK_LAYER)),
        "gpt_oss": _causal("GptOss", GPT_OSS),
        "qwen3_next": _causal("Qwen3Next", QWEN3_NEXT),
        "glm4_moe": _causal("Glm4Moe", GLM4_MOE),
        "smollm3": _causal("SmolLM3", DENSE),
        "gemma3_text": Family(
            class_prefix="Gemma3",
            head="Gemma3ForCausalLM",
            base="Gemma3TextModel",
            blocks=GEMMA3,
            divides=True,
        ),
        "llama4_text": Family(
            class_prefix="Llama4Text",
            head="Llama4ForCausalLM",
            base="Llama4TextModel",
            blocks=LLAMA4,
        ),
        "gemma": _causal("Gemma", decoder(QKVO + MLP + NORMS, embedding=SCALED)),
        "gemma2": _causal(
            "Gemma2",
            decoder(QKVO + MLP + NORMS + GEMMA2_NORMS, embedding=SCALED),
            divides=True,
        ),
        "phi3": _causal("Phi3", decoder(PHI3_LAYER)),
        "phi": _causal("Phi", PHI),
        "opt": _causal("OPT", OPT, divides=True),
        "bloom": _older("Bloom", BLOOM, "transformer."),
        "falcon": _older("Falcon", FALCON, "transformer."),
        "gpt_neox": _older("GPTNeoX", GPT_NEOX, "gpt_neox."),
        "gpt2": Family(
            class_prefix="GPT2",
            head="GPT2LMHeadModel",
            base="GPT2Model",
            base_prefix="transformer.",
            blocks=GPT2,
            hidden_key="n_embd",
            divides=True,
            padding_idx=False,
        ),
        "bert": Family(
            class_prefix="Bert",
            head="BertForMaskedLM",
            base="BertModel",
            base_prefix="bert.",
            blocks=BERT,
            divides=True,
            heads_known=("BertForPreTraining",),
        ),
        "t5": Family(
            class_prefix="T5",
            head="T5ForConditionalGeneration",
            base="T5Model",
            base_prefix="",
            blocks=T5,
            hidden_key="d_model",
            padding_idx=False,
            heads_known=("T5WithLMHeadModel",),  # the hub's older name of the same class
        ),
    }
)
