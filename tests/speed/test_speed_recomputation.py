"""FLOPs that checkpointing repeats, against torch's own count of small models of each family."""

import pytest

from zero_sizer.models.sources.hf_config import spec_of_fields
from zero_sizer.speed.work import work_of

pytestmark = pytest.mark.slow
TOKENS = 32
WIDTHS = {
    **{"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 32},
    **{"num_key_value_heads": 4, "intermediate_size": 256, "head_dim": 16, "pad_token_id": 0},
    **{"ffn_dim": 256, "word_embed_proj_dim": 64, "n_inner": 256, "query_pre_attn_scalar": 16},
    **{"rotary_dim": 16, "num_local_experts": 4, "max_position_embeddings": 128},
}
FAMILIES = (
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gpt_neox", "gptj", "bloom"),
    *("gemma2", "olmo2", "gpt2", "opt", "mixtral"),  # these keep something after the last product
)


def small(family):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[family]()
    for name, value in WIDTHS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return AutoModelForCausalLM.from_config(config).train(), config


def flops(model):
    """Of one forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.ones(1, TOKENS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_torch_stops_before_the_product_that_ends_a_block(family):
    model, config = small(family)
    model.enable_input_require_grads()  # a reentrant checkpoint needs it
    counted = {}
    for reentrant in (True, False):
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
        counted[reentrant] = flops(model)
        model.activation_checkpointing_disable()
    work = work_of(spec_of_fields(config.to_dict(), name=family, where="test"))
    assert counted[True] - counted[False] == work.last_flops * TOKENS
    assert flops(model) < counted[False]
