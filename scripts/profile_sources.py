"""The config.json of every bundled model, field by field, and the parameter count it is known for.

``source`` names the repository on the Hugging Face hub whose public config.json says these numbers.
Only fields that differ from the config class's defaults, or that decide a shape, are repeated here.
``params`` is the count published with that repository's weights (the safetensors metadata, tied
tensors once), or in its model card; None where none is published that counts the same class.
"""

from dataclasses import dataclass, field
from typing import Any

# The config fields that "auto", closed forms and layouts read; the rest is about generation.
_FIELDS = """
_remove_final_layer_norm activation_function add_cross_attention alibi attention_bias
attention_dropout attention_probs_dropout_prob attn_pdrop bias d_ff d_kv d_model
decoder_sparse_step do_layer_norm_before dropout dropout_rate embd_pdrop enable_bias
feed_forward_proj ffn_dim ffn_hidden_size first_k_dense_replace head_dim hidden_act
hidden_activation hidden_dropout hidden_dropout_prob hidden_size intermediate_size is_decoder
kv_lora_rank layer_norm_elementwise_affine max_position_embeddings mlp_bias mlp_only_layers
model_type moe_intermediate_size multi_query n_embd n_head n_inner n_layer n_positions
n_routed_experts n_shared_experts new_decoder_architecture num_attention_heads
num_decoder_layers num_experts num_experts_per_tok num_heads num_hidden_layers
num_key_value_heads num_kv_heads num_layers num_ln_in_parallel_attn num_local_experts
original_max_position_embeddings pad_token_id parallel_attn q_lora_rank qk_layernorm
qk_nope_head_dim qk_rope_head_dim query_pre_attn_scalar relative_attention_num_buckets
resid_pdrop sliding_window tie_word_embeddings type_vocab_size use_parallel_residual
use_sliding_window v_head_dim vocab_size word_embed_proj_dim
"""
CONFIG_FIELDS = frozenset(_FIELDS.split())


@dataclass(frozen=True, kw_only=True)
class Source:
    """One model to bundle: ``family`` is its ``model_type``, ``head`` the class that is trained."""

    family: str
    source: str
    head: str
    params: int | None
    config: dict[str, Any] = field(default_factory=dict)


def _decoder(
    hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "dtype": "bfloat16",
        **more,
    }


def _llama(source: str, params: int, **config: Any) -> Source:
    config.setdefault("rms_norm_eps", 1e-5)
    return Source(
        family="llama", source=source, head="LlamaForCausalLM", params=params, config=config
    )


def _causal(family: str, head: str, source: str, params: int | None, **config: Any) -> Source:
    return Source(family=family, source=source, head=head, params=params, config=config)


_LLAMA_2: dict[str, Any] = {"max_position_embeddings": 4096, "dtype": "float16"}
_LLAMA_3: dict[str, Any] = {"max_position_embeddings": 8192}
_LLAMA_31: dict[str, Any] = {"max_position_embeddings": 131072}
_LONG: dict[str, Any] = {"max_position_embeddings": 131072}

LLAMA = {
    "llama-2-7b": _llama(
        "meta-llama/Llama-2-7b-hf",
        6_738_415_616,
        **_decoder(4096, 11008, 32, 32, 32, 32000, **_LLAMA_2),
    ),
    "llama-2-13b": _llama(
        "meta-llama/Llama-2-13b-hf",
        13_015_864_320,
        **_decoder(5120, 13824, 40, 40, 40, 32000, **_LLAMA_2),
    ),
    "llama-2-70b": _llama(
        "meta-llama/Llama-2-70b-hf",
        68_976_648_192,
        **_decoder(8192, 28672, 80, 64, 8, 32000, **_LLAMA_2),
    ),
    "llama-3-8b": _llama(
        "meta-llama/Meta-Llama-3-8B",
        8_030_261_248,
        **_decoder(4096, 14336, 32, 32, 8, 128256, **_LLAMA_3),
    ),
    "llama-3-70b": _llama(
        "meta-llama/Meta-Llama-3-70B",
        70_553_706_496,
        **_decoder(8192, 28672, 80, 64, 8, 128256, **_LLAMA_3),
    ),
    # Llama 3 has one 405B model, released as 3.1; both names are asked for.
    "llama-3-405b": _llama(
        "meta-llama/Llama-3.1-405B",
        405_853_388_800,
        **_decoder(16384, 53248, 126, 128, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.1-8b": _llama(
        "meta-llama/Llama-3.1-8B",
        8_030_261_248,
        **_decoder(4096, 14336, 32, 32, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.1-70b": _llama(
        "meta-llama/Llama-3.1-70B",
        70_553_706_496,
        **_decoder(8192, 28672, 80, 64, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.1-405b": _llama(
        "meta-llama/Llama-3.1-405B",
        405_853_388_800,
        **_decoder(16384, 53248, 126, 128, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.2-1b": _llama(
        "meta-llama/Llama-3.2-1B",
        1_235_814_400,
        **_decoder(2048, 8192, 16, 32, 8, 128256, tie_word_embeddings=True, **_LLAMA_31),
    ),
    "llama-3.2-3b": _llama(
        "meta-llama/Llama-3.2-3B",
        3_212_749_824,
        **_decoder(3072, 8192, 28, 24, 8, 128256, tie_word_embeddings=True, **_LLAMA_31),
    ),
    "tinyllama-1.1b": _llama(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        1_100_048_384,
        **_decoder(2048, 5632, 22, 32, 4, 32000, max_position_embeddings=2048),
    ),
    "smollm2-135m": _llama(
        "HuggingFaceTB/SmolLM2-135M",
        134_515_008,
        **_decoder(576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True, **_LLAMA_3),
    ),
    "smollm2-360m": _llama(
        "HuggingFaceTB/SmolLM2-360M",
        361_821_120,
        **_decoder(960, 2560, 32, 15, 5, 49152, tie_word_embeddings=True, **_LLAMA_3),
    ),
    "smollm2-1.7b": _llama(
        "HuggingFaceTB/SmolLM2-1.7B",
        1_711_376_384,
        **_decoder(2048, 8192, 24, 32, 32, 49152, tie_word_embeddings=True, **_LLAMA_3),
    ),
}

MISTRAL = {
    "mistral-7b": _causal(
        "mistral",
        "MistralForCausalLM",
        "mistralai/Mistral-7B-v0.1",
        7_241_732_096,
        **_decoder(4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768),
    ),
    "mistral-7b-v0.3": _causal(
        "mistral",
        "MistralForCausalLM",
        "mistralai/Mistral-7B-v0.3",
        7_248_023_552,
        **_decoder(
            4096, 14336, 32, 32, 8, 32768, max_position_embeddings=32768, sliding_window=None
        ),
    ),
    "mixtral-8x7b": _causal(
        "mixtral",
        "MixtralForCausalLM",
        "mistralai/Mixtral-8x7B-v0.1",
        46_702_792_704,
        **_decoder(
            4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768, num_local_experts=8
        ),
    ),
    "mixtral-8x22b": _causal(
        "mixtral",
        "MixtralForCausalLM",
        "mistralai/Mixtral-8x22B-v0.1",
        140_620_634_112,
        **_decoder(
            6144, 16384, 56, 48, 8, 32000, max_position_embeddings=65536, num_local_experts=8
        ),
    ),
}


def _qwen(source: str, params: int, *widths: int, **config: Any) -> Source:
    generation = "qwen2" if "2.5" in source else "qwen3"
    if generation == "qwen3":
        config = {"head_dim": 128, "max_position_embeddings": 40960, **config}
    head = "Qwen2ForCausalLM" if generation == "qwen2" else "Qwen3ForCausalLM"
    return _causal(generation, head, source, params, **_decoder(*widths, **config))


QWEN = {
    "qwen2.5-0.5b": _qwen(
        "Qwen/Qwen2.5-0.5B",
        494_032_768,
        *(896, 4864, 24, 14, 2, 151936),
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
    "qwen2.5-1.5b": _qwen(
        "Qwen/Qwen2.5-1.5B",
        1_543_714_304,
        *(1536, 8960, 28, 12, 2, 151936),
        tie_word_embeddings=True,
        **_LONG,
    ),
    "qwen2.5-3b": _qwen(
        "Qwen/Qwen2.5-3B",
        3_085_938_688,
        *(2048, 11008, 36, 16, 2, 151936),
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
    "qwen2.5-7b": _qwen(
        "Qwen/Qwen2.5-7B", 7_615_616_512, *(3584, 18944, 28, 28, 4, 152064), **_LONG
    ),
    "qwen2.5-14b": _qwen(
        "Qwen/Qwen2.5-14B", 14_770_033_664, *(5120, 13824, 48, 40, 8, 152064), **_LONG
    ),
    "qwen2.5-32b": _qwen(
        "Qwen/Qwen2.5-32B", 32_763_876_352, *(5120, 27648, 64, 40, 8, 152064), **_LONG
    ),
    "qwen2.5-72b": _qwen(
        "Qwen/Qwen2.5-72B", 72_706_203_648, *(8192, 29568, 80, 64, 8, 152064), **_LONG
    ),
    "qwen3-0.6b": _qwen(
        "Qwen/Qwen3-0.6B",
        596_049_920,
        *(1024, 3072, 28, 16, 8, 151936),
        tie_word_embeddings=True,
    ),
    "qwen3-1.7b": _qwen(
        "Qwen/Qwen3-1.7B",
        1_720_574_976,
        *(2048, 6144, 28, 16, 8, 151936),
        tie_word_embeddings=True,
    ),
    "qwen3-4b": _qwen(
        "Qwen/Qwen3-4B",
        4_022_468_096,
        *(2560, 9728, 36, 32, 8, 151936),
        tie_word_embeddings=True,
    ),
    "qwen3-8b": _qwen("Qwen/Qwen3-8B", 8_190_735_360, *(4096, 12288, 36, 32, 8, 151936)),
    "qwen3-14b": _qwen("Qwen/Qwen3-14B", 14_768_307_200, *(5120, 17408, 40, 40, 8, 151936)),
    "qwen3-32b": _qwen("Qwen/Qwen3-32B", 32_762_123_264, *(5120, 25600, 64, 64, 8, 151936)),
    "qwen3-30b-a3b": _causal(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        "Qwen/Qwen3-30B-A3B",
        30_532_122_624,
        **_decoder(2048, 6144, 48, 32, 4, 151936, head_dim=128, max_position_embeddings=40960),
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
    ),
    "qwen3-235b-a22b": _causal(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        "Qwen/Qwen3-235B-A22B",
        235_093_634_560,
        **_decoder(4096, 12288, 94, 64, 4, 151936, head_dim=128, max_position_embeddings=40960),
        moe_intermediate_size=1536,
        num_experts=128,
        num_experts_per_tok=8,
    ),
}


def _gpt2(source: str, params: int, hidden: int, layers: int, heads: int) -> Source:
    config = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "vocab_size": 50257}
    return _causal("gpt2", "GPT2LMHeadModel", source, params, n_positions=1024, **config)


def _opt(source: str, params: int, hidden: int, layers: int, heads: int) -> Source:
    return _causal(
        "opt",
        "OPTForCausalLM",
        source,
        params,
        hidden_size=hidden,
        ffn_dim=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=50272,
        max_position_embeddings=2048,
        dtype="float16",
    )


def _bloom(source: str, params: int, hidden: int, layers: int, heads: int) -> Source:
    config = {"hidden_size": hidden, "n_layer": layers, "n_head": heads, "vocab_size": 250880}
    return _causal("bloom", "BloomForCausalLM", source, params, **config)


def _neox(source: str, params: int, *widths: int) -> Source:
    hidden, layers, heads, vocab = widths
    return _causal(
        "gpt_neox",
        "GPTNeoXForCausalLM",
        source,
        params,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        vocab_size=vocab,
        max_position_embeddings=2048,
        dtype="float16",
    )


OLDER = {
    "gpt2": _gpt2("openai-community/gpt2", 124_439_808, 768, 12, 12),
    "gpt2-medium": _gpt2("openai-community/gpt2-medium", 354_823_168, 1024, 24, 16),
    "gpt2-large": _gpt2("openai-community/gpt2-large", 774_030_080, 1280, 36, 20),
    "gpt2-xl": _gpt2("openai-community/gpt2-xl", 1_557_611_200, 1600, 48, 25),
    "opt-125m": _opt("facebook/opt-125m", 125_239_296, 768, 12, 12),
    "opt-1.3b": _opt("facebook/opt-1.3b", 1_315_758_080, 2048, 24, 32),
    "opt-6.7b": _opt("facebook/opt-6.7b", 6_658_473_984, 4096, 32, 32),
    "opt-13b": _opt("facebook/opt-13b", 12_853_473_280, 5120, 40, 40),
    "opt-30b": _opt("facebook/opt-30b", 29_974_540_288, 7168, 48, 56),
    "bloom-560m": _bloom("bigscience/bloom-560m", 559_214_592, 1024, 24, 16),
    "bloom-7b1": _bloom("bigscience/bloom-7b1", 7_069_016_064, 4096, 30, 32),
    "bloom-176b": _bloom("bigscience/bloom", 176_247_271_424, 14336, 70, 112),
    "gpt-neox-20b": _neox("EleutherAI/gpt-neox-20b", 20_554_567_680, 6144, 44, 64, 50432),
    "pythia-1.4b": _neox("EleutherAI/pythia-1.4b", 1_414_647_808, 2048, 24, 16, 50304),
    "pythia-6.9b": _neox("EleutherAI/pythia-6.9b", 6_857_302_016, 4096, 32, 32, 50432),
    "pythia-12b": _neox("EleutherAI/pythia-12b", 11_846_072_320, 5120, 36, 40, 50688),
    "falcon-7b": _causal(
        "falcon",
        "FalconForCausalLM",
        "tiiuae/falcon-7b",
        6_921_720_704,
        hidden_size=4544,
        num_hidden_layers=32,
        num_attention_heads=71,
        vocab_size=65024,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        bias=False,
        alibi=False,
        dtype="bfloat16",
    ),
    "t5-3b": _causal(
        "t5",
        "T5ForConditionalGeneration",
        "google-t5/t5-3b",
        2_851_598_336,
        d_model=1024,
        d_kv=128,
        d_ff=16384,
        num_layers=24,
        num_heads=32,
        vocab_size=32128,
    ),
    # The hub's config unties the output layer; transformers 5 ties T5's whatever the config says.
    # 2783M is what DeepSpeed's documentation prints for this model.
    "t0-3b": _causal(
        "t5",
        "T5ForConditionalGeneration",
        "bigscience/T0_3B",
        2_783_959_040,
        d_model=2048,
        d_kv=64,
        d_ff=5120,
        num_layers=24,
        num_heads=32,
        vocab_size=32128,
        feed_forward_proj="gated-gelu",
    ),
    "bert-base": _causal(
        "bert",
        "BertForMaskedLM",
        "google-bert/bert-base-uncased",
        109_514_298,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        vocab_size=30522,
    ),
    "bert-large": _causal(
        "bert",
        "BertForMaskedLM",
        "google-bert/bert-large-uncased",
        335_174_458,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        vocab_size=30522,
    ),
}

OTHERS = {
    # Published with the 58 x 256 router correction biases (buffers here) and without the 11.6B of
    # its multi-token prediction layer, which transformers does not build: 671,026,419,200.
    "deepseek-v3": _causal(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        "deepseek-ai/DeepSeek-V3",
        671_026_419_200 - 58 * 256,
        **_decoder(7168, 18432, 61, 128, 128, 129280, max_position_embeddings=163840),
        moe_intermediate_size=2048,
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
    ),
    "phi-2": _causal(
        "phi",
        "PhiForCausalLM",
        "microsoft/phi-2",
        2_779_683_840,
        **_decoder(2560, 10240, 32, 32, 32, 51200, max_position_embeddings=2048),
    ),
    "phi-3-mini": _causal(
        "phi3",
        "Phi3ForCausalLM",
        "microsoft/Phi-3-mini-4k-instruct",
        3_821_079_552,
        **_decoder(3072, 8192, 32, 32, 32, 32064, max_position_embeddings=4096),
    ),
    "phi-4": _causal(
        "phi3",
        "Phi3ForCausalLM",
        "microsoft/phi-4",
        14_659_507_200,
        **_decoder(5120, 17920, 40, 40, 10, 100352, max_position_embeddings=16384),
        pad_token_id=100349,
        bos_token_id=100257,
        eos_token_id=100265,
    ),
    "gemma-2b": _causal(
        "gemma",
        "GemmaForCausalLM",
        "google/gemma-2b",
        2_506_172_416,
        **_decoder(2048, 16384, 18, 8, 1, 256000, head_dim=256, **_LLAMA_3),
    ),
    "gemma-1.1-2b": _causal(
        "gemma",
        "GemmaForCausalLM",
        "google/gemma-1.1-2b-it",
        2_506_172_416,
        **_decoder(2048, 16384, 18, 8, 1, 256000, head_dim=256, **_LLAMA_3),
    ),
    "gemma-7b": _causal(
        "gemma",
        "GemmaForCausalLM",
        "google/gemma-7b",
        8_537_680_896,
        **_decoder(3072, 24576, 28, 16, 16, 256000, head_dim=256, **_LLAMA_3),
    ),
    "gemma-2-2b": _causal(
        "gemma2",
        "Gemma2ForCausalLM",
        "google/gemma-2-2b",
        2_614_341_888,
        **_decoder(2304, 9216, 26, 8, 4, 256000, head_dim=256, **_LLAMA_3),
    ),
    "gemma-2-9b": _causal(
        "gemma2",
        "Gemma2ForCausalLM",
        "google/gemma-2-9b",
        9_241_705_984,
        **_decoder(3584, 14336, 42, 16, 8, 256000, head_dim=256, **_LLAMA_3),
    ),
    "gemma-2-27b": _causal(
        "gemma2",
        "Gemma2ForCausalLM",
        "google/gemma-2-27b",
        27_227_128_320,
        **_decoder(4608, 36864, 46, 32, 16, 256000, head_dim=128, **_LLAMA_3),
    ),
}

SOURCES: dict[str, Source] = {**LLAMA, **MISTRAL, **QWEN, **OLDER, **OTHERS}
