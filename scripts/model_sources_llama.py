"""Bundled models of the Llama, Mistral and Qwen families (the fields: ``model_source``)."""

from typing import Any

from model_source import LLAMA_3, Source, causal, decoder, llama

_LLAMA_2: dict[str, Any] = {"max_position_embeddings": 4096, "dtype": "float16"}
_LLAMA_31: dict[str, Any] = {"max_position_embeddings": 131072}
_LONG: dict[str, Any] = {"max_position_embeddings": 131072}

LLAMA = {
    "llama-2-7b": llama(
        "meta-llama/Llama-2-7b-hf",
        6_738_415_616,
        **decoder(4096, 11008, 32, 32, 32, 32000, **_LLAMA_2),
    ),
    "llama-2-13b": llama(
        "meta-llama/Llama-2-13b-hf",
        13_015_864_320,
        **decoder(5120, 13824, 40, 40, 40, 32000, **_LLAMA_2),
    ),
    "llama-2-70b": llama(
        "meta-llama/Llama-2-70b-hf",
        68_976_648_192,
        **decoder(8192, 28672, 80, 64, 8, 32000, **_LLAMA_2),
    ),
    "llama-3-8b": llama(
        "meta-llama/Meta-Llama-3-8B",
        8_030_261_248,
        **decoder(4096, 14336, 32, 32, 8, 128256, **LLAMA_3),
    ),
    "llama-3-70b": llama(
        "meta-llama/Meta-Llama-3-70B",
        70_553_706_496,
        **decoder(8192, 28672, 80, 64, 8, 128256, **LLAMA_3),
    ),
    # Llama 3 has one 405B model, released as 3.1; both names are asked for.
    "llama-3-405b": llama(
        "meta-llama/Llama-3.1-405B",
        405_853_388_800,
        **decoder(16384, 53248, 126, 128, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.1-8b": llama(
        "meta-llama/Llama-3.1-8B",
        8_030_261_248,
        **decoder(4096, 14336, 32, 32, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.1-70b": llama(
        "meta-llama/Llama-3.1-70B",
        70_553_706_496,
        **decoder(8192, 28672, 80, 64, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.1-405b": llama(
        "meta-llama/Llama-3.1-405B",
        405_853_388_800,
        **decoder(16384, 53248, 126, 128, 8, 128256, **_LLAMA_31),
    ),
    "llama-3.2-1b": llama(
        "meta-llama/Llama-3.2-1B",
        1_235_814_400,
        **decoder(2048, 8192, 16, 32, 8, 128256, tie_word_embeddings=True, **_LLAMA_31),
    ),
    "llama-3.2-3b": llama(
        "meta-llama/Llama-3.2-3B",
        3_212_749_824,
        **decoder(3072, 8192, 28, 24, 8, 128256, tie_word_embeddings=True, **_LLAMA_31),
    ),
    "tinyllama-1.1b": llama(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        1_100_048_384,
        **decoder(2048, 5632, 22, 32, 4, 32000, max_position_embeddings=2048),
    ),
    "smollm2-135m": llama(
        "HuggingFaceTB/SmolLM2-135M",
        134_515_008,
        **decoder(576, 1536, 30, 9, 3, 49152, tie_word_embeddings=True, **LLAMA_3),
    ),
    "smollm2-360m": llama(
        "HuggingFaceTB/SmolLM2-360M",
        361_821_120,
        **decoder(960, 2560, 32, 15, 5, 49152, tie_word_embeddings=True, **LLAMA_3),
    ),
    "smollm2-1.7b": llama(
        "HuggingFaceTB/SmolLM2-1.7B",
        1_711_376_384,
        **decoder(2048, 8192, 24, 32, 32, 49152, tie_word_embeddings=True, **LLAMA_3),
    ),
}

MISTRAL = {
    "mistral-7b": causal(
        "mistral",
        "MistralForCausalLM",
        "mistralai/Mistral-7B-v0.1",
        7_241_732_096,
        **decoder(4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768),
    ),
    "mistral-7b-v0.3": causal(
        "mistral",
        "MistralForCausalLM",
        "mistralai/Mistral-7B-v0.3",
        7_248_023_552,
        **decoder(
            4096, 14336, 32, 32, 8, 32768, max_position_embeddings=32768, sliding_window=None
        ),
    ),
    "mixtral-8x7b": causal(
        "mixtral",
        "MixtralForCausalLM",
        "mistralai/Mixtral-8x7B-v0.1",
        46_702_792_704,
        **decoder(
            4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768, num_local_experts=8
        ),
    ),
    "mixtral-8x22b": causal(
        "mixtral",
        "MixtralForCausalLM",
        "mistralai/Mixtral-8x22B-v0.1",
        140_620_634_112,
        **decoder(
            6144, 16384, 56, 48, 8, 32000, max_position_embeddings=65536, num_local_experts=8
        ),
    ),
}


def _qwen(source: str, params: int, *widths: int, **config: Any) -> Source:
    generation = "qwen2" if "2.5" in source else "qwen3"
    if generation == "qwen3":
        config = {"head_dim": 128, "max_position_embeddings": 40960, **config}
    head = "Qwen2ForCausalLM" if generation == "qwen2" else "Qwen3ForCausalLM"
    return causal(generation, head, source, params, **decoder(*widths, **config))


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
    "qwen3-30b-a3b": causal(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        "Qwen/Qwen3-30B-A3B",
        30_532_122_624,
        **decoder(2048, 6144, 48, 32, 4, 151936, head_dim=128, max_position_embeddings=40960),
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
    ),
    "qwen3-235b-a22b": causal(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        "Qwen/Qwen3-235B-A22B",
        235_093_634_560,
        **decoder(4096, 12288, 94, 64, 4, 151936, head_dim=128, max_position_embeddings=40960),
        moe_intermediate_size=1536,
        num_experts=128,
        num_experts_per_tok=8,
    ),
}
