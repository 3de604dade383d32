"""The cache, element by element, against the storages of transformers' own caches on a CPU."""

import json

import pytest

from zero_sizer import models
from zero_sizer.models import kv_cache

_WIDTHS = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4, "vocab_size": 128}
_FFN = {**_WIDTHS, "intermediate_size": 96}
CONFIGS = {
    "llama": {**_FFN, "num_key_value_heads": 2},
    "qwen2": {**_FFN, "num_key_value_heads": 4, "use_sliding_window": False},
    "mistral": {**_FFN, "num_key_value_heads": 2, "sliding_window": 8},
    "gemma2": {**_FFN, "num_key_value_heads": 2, "head_dim": 24, "sliding_window": 8},
    "gemma3_text": {**_FFN, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8},
    "deepseek_v3": {
        **_FFN,
        **{"moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2},
        **{"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4},
        **{"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8},
        "v_head_dim": 16,
    },
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 3, "vocab_size": 128, "n_positions": 64},
    "opt": {**_WIDTHS, "ffn_dim": 96, "max_position_embeddings": 64, "word_embed_proj_dim": 64},
    "falcon": {**_WIDTHS, "multi_query": True, "new_decoder_architecture": False},
}
BATCH = 2
RUNS = ((5, 1), (20, 1), (5, 6), (20, 4))  # within a window of 8 and beyond it


@pytest.fixture(scope="module", params=CONFIGS)
def model(request, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    config = transformers.CONFIG_MAPPING[request.param](**CONFIGS[request.param])
    path = tmp_path_factory.mktemp(request.param) / "config.json"
    path.write_text(json.dumps({**config.to_dict(), "model_type": request.param}))
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    return made, kv_cache.layers_of(models.load(str(path)))


def stored(model, prompt: int, new_tokens: int, **more) -> int:
    """Elements of the cache's storages once ``generate`` is over."""
    import torch

    found = model.generate(
        torch.ones(BATCH, prompt, dtype=torch.long),
        attention_mask=torch.ones(BATCH, prompt, dtype=torch.long),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        return_dict_in_generate=True,
        pad_token_id=0,
        **more,
    )
    tensors = [t for layer in found.past_key_values.layers for t in (layer.keys, layer.values)]
    return sum(t.untyped_storage().nbytes() // t.element_size() for t in tensors)


@pytest.mark.parametrize(("prompt", "new_tokens"), RUNS)
@pytest.mark.filterwarnings("ignore")
def test_a_cache_that_grows(model, prompt, new_tokens):
    made, layers = model
    if new_tokens == 1:  # the prefill alone
        expected = [kv_cache.after_prefill(layer, prompt) for layer in layers]
    else:
        expected = [kv_cache.while_decoding(layer, prompt + new_tokens - 1) for layer in layers]
    assert stored(made, prompt, new_tokens) == BATCH * sum(expected)


@pytest.mark.parametrize(("prompt", "new_tokens"), RUNS[2:])
@pytest.mark.filterwarnings("ignore")
def test_a_cache_that_is_allocated_at_once(model, prompt, new_tokens):
    made, layers = model
    expected = [kv_cache.static(layer, prompt + new_tokens - 1) for layer in layers]
    found = stored(made, prompt, new_tokens, cache_implementation="static", disable_compile=True)
    assert found == BATCH * sum(expected)


def test_a_model_without_one():
    assert kv_cache.layers_of(models.load("bert-base")) == ()
    assert kv_cache.layers_of(models.load("t5-3b")) == ()
