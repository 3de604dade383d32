"""Bundled models of the other families (the fields: ``model_source``)."""

from model_source import LLAMA_3, Source, causal, decoder


def _gpt2(source: str, params: int, hidden: int, layers: int, heads: int) -> Source:
    config = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "vocab_size": 50257}
    return causal("gpt2", "GPT2LMHeadModel", source, params, n_positions=1024, **config)


def _opt(source: str, params: int, hidden: int, layers: int, heads: int) -> Source:
    return causal(
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
    return causal("bloom", "BloomForCausalLM", source, params, **config)


def _neox(source: str, params: int, *widths: int) -> Source:
    hidden, layers, heads, vocab = widths
    return causal(
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
    "falcon-7b": causal(
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
    # transformers' class has a head of its own with a bias, and buffers of rotary positions.
    "gpt-j-6b": causal(
        "gptj",
        "GPTJForCausalLM",
        "EleutherAI/gpt-j-6b",
        6_050_882_784,
        n_embd=4096,
        n_layer=28,
        n_head=16,
        n_positions=2048,
        rotary_dim=64,
        vocab_size=50400,
    ),
    "t5-3b": causal(
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
    "t0-3b": causal(
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
    "bert-base": causal(
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
    "bert-large": causal(
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
    "deepseek-v3": causal(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        "deepseek-ai/DeepSeek-V3",
        671_026_419_200 - 58 * 256,
        **decoder(7168, 18432, 61, 128, 128, 129280, max_position_embeddings=163840),
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
    "phi-2": causal(
        "phi",
        "PhiForCausalLM",
        "microsoft/phi-2",
        2_779_683_840,
        **decoder(2560, 10240, 32, 32, 32, 51200, max_position_embeddings=2048),
        partial_rotary_factor=0.4,
        resid_pdrop=0.1,
    ),
    "phi-3-mini": causal(
        "phi3",
        "Phi3ForCausalLM",
        "microsoft/Phi-3-mini-4k-instruct",
        3_821_079_552,
        **decoder(3072, 8192, 32, 32, 32, 32064, max_position_embeddings=4096),
        sliding_window=2047,
    ),
    "phi-4": causal(
        "phi3",
        "Phi3ForCausalLM",
        "microsoft/phi-4",
        14_659_507_200,
        **decoder(5120, 17920, 40, 40, 10, 100352, max_position_embeddings=16384),
        pad_token_id=100349,
        bos_token_id=100257,
        eos_token_id=100265,
    ),
    "gemma-2b": causal(
        "gemma",
        "GemmaForCausalLM",
        "google/gemma-2b",
        2_506_172_416,
        **decoder(2048, 16384, 18, 8, 1, 256000, head_dim=256, **LLAMA_3),
    ),
    "gemma-1.1-2b": causal(
        "gemma",
        "GemmaForCausalLM",
        "google/gemma-1.1-2b-it",
        2_506_172_416,
        **decoder(2048, 16384, 18, 8, 1, 256000, head_dim=256, **LLAMA_3),
    ),
    "gemma-7b": causal(
        "gemma",
        "GemmaForCausalLM",
        "google/gemma-7b",
        8_537_680_896,
        **decoder(3072, 24576, 28, 16, 16, 256000, head_dim=256, **LLAMA_3),
    ),
    "gemma-2-2b": causal(
        "gemma2",
        "Gemma2ForCausalLM",
        "google/gemma-2-2b",
        2_614_341_888,
        **decoder(2304, 9216, 26, 8, 4, 256000, head_dim=256, **LLAMA_3),
    ),
    "gemma-2-9b": causal(
        "gemma2",
        "Gemma2ForCausalLM",
        "google/gemma-2-9b",
        9_241_705_984,
        **decoder(3584, 14336, 42, 16, 8, 256000, head_dim=256, **LLAMA_3),
    ),
    "gemma-2-27b": causal(
        "gemma2",
        "Gemma2ForCausalLM",
        "google/gemma-2-27b",
        27_227_128_320,
        **decoder(4608, 36864, 46, 32, 16, 256000, head_dim=128, **LLAMA_3),
        query_pre_attn_scalar=144,
    ),
}
