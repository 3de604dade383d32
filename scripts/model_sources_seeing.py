"""Bundled models that see, hear or denoise (fields: ``model_source``)."""

from typing import Any

from model_source import Source, causal, decoder


def _whisper(source: str, params: int, hidden: int, layers: tuple[int, int], **more: Any) -> Source:
    heads, ffn = hidden // 64, 4 * hidden
    return causal(
        "whisper",
        "WhisperForConditionalGeneration",
        source,
        params,
        d_model=hidden,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        max_source_positions=1500,
        max_target_positions=448,
        **{"vocab_size": 51865, "num_mel_bins": 80, **more},
    )


_LARGE_V3: dict[str, Any] = {"vocab_size": 51866, "num_mel_bins": 128, "dtype": "float16"}

HEARING = {
    "whisper-tiny": _whisper("openai/whisper-tiny", 37_760_640, 384, (4, 4)),
    "whisper-base": _whisper("openai/whisper-base", 72_593_920, 512, (6, 6)),
    "whisper-small": _whisper("openai/whisper-small", 241_734_912, 768, (12, 12)),
    "whisper-medium": _whisper("openai/whisper-medium", 763_857_920, 1024, (24, 24)),
    "whisper-large-v2": _whisper("openai/whisper-large-v2", 1_543_304_960, 1280, (32, 32)),
    "whisper-large-v3": _whisper(
        "openai/whisper-large-v3", 1_543_490_560, 1280, (32, 32), **_LARGE_V3
    ),
    "whisper-large-v3-turbo": _whisper(
        "openai/whisper-large-v3-turbo", 808_878_080, 1280, (32, 4), **_LARGE_V3
    ),
}


def _vit(
    source: str, params: int | None, hidden: int, layers: int, heads: int, **more: Any
) -> Source:
    return causal(
        "vit",
        "ViTForImageClassification",
        source,
        params,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=224,
        **{"patch_size": 16, "num_labels": 1000, **more},
    )


def _dinov2(source: str, hidden: int, layers: int, heads: int) -> Source:
    return causal(
        "dinov2",
        "Dinov2ForImageClassification",
        source,
        None,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        num_labels=1000,
    )


def tower_fields(hidden: int, ffn: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """A tower of images in a config."""
    return {
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


_SIGLIP: dict[str, Any] = {"image_size": 896, "patch_size": 14, "vision_use_head": False}

SEEING = {
    "vit-base": _vit("google/vit-base-patch16-224", 86_567_656, 768, 12, 12),
    "vit-large": _vit("google/vit-large-patch16-224", 304_326_632, 1024, 24, 16),
    "vit-huge": _vit(
        "google/vit-huge-patch14-224-in21k", None, 1280, 32, 16, patch_size=14, num_labels=21843
    ),
    "dinov2-base": _dinov2("facebook/dinov2-base-imagenet1k-1-layer", 768, 12, 12),
    "dinov2-large": _dinov2("facebook/dinov2-large-imagenet1k-1-layer", 1024, 24, 16),
    "clip-vit-base": causal(
        "clip",
        "CLIPModel",
        "openai/clip-vit-base-patch32",
        151_277_313,
        projection_dim=512,
        text_config=tower_fields(512, 2048, 12, 8, projection_dim=512, max_position_embeddings=77),
        vision_config=tower_fields(
            768, 3072, 12, 12, projection_dim=512, image_size=224, patch_size=32
        ),
    ),
    "clip-vit-large": causal(
        "clip",
        "CLIPModel",
        "openai/clip-vit-large-patch14",
        427_616_513,
        projection_dim=768,
        text_config=tower_fields(768, 3072, 12, 12, projection_dim=768, max_position_embeddings=77),
        vision_config=tower_fields(
            1024, 4096, 24, 16, projection_dim=768, image_size=224, patch_size=14
        ),
    ),
    "siglip-so400m": causal(
        "siglip",
        "SiglipModel",
        "google/siglip-so400m-patch14-384",
        None,
        text_config=tower_fields(1152, 4304, 27, 16, vocab_size=32000, max_position_embeddings=64),
        vision_config=tower_fields(1152, 4304, 27, 16, image_size=384, patch_size=14),
    ),
}


_FOUR: dict[str, Any] = {"max_position_embeddings": 4096}


def _llava(source: str, params: int | None, text: dict[str, Any]) -> Source:
    tower = tower_fields(1024, 4096, 24, 16, image_size=336, patch_size=14, projection_dim=768)
    return causal(
        "llava",
        "LlavaForConditionalGeneration",
        source,
        params,
        dtype="float16",
        image_token_index=32000,
        image_seq_length=576,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        text_config={"model_type": "llama", **text},
        vision_config={"model_type": "clip_vision_model", **tower},
    )


def text_fields(*widths: int, **more: Any) -> dict[str, Any]:
    """A language model in a config: ``decoder``'s fields, the dtype said outside."""
    fields = decoder(*widths, **more)
    fields.pop("dtype")
    return fields


def qwen_vl(
    kind: str, source: str, params: int | None, text: dict[str, Any], tower: dict[str, Any]
) -> Source:
    """A model of one of Qwen's families that see."""
    families = {
        "qwen2_vl": "Qwen2VLForConditionalGeneration",
        "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
        "qwen3_vl": "Qwen3VLForConditionalGeneration",
        "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    }
    return causal(
        kind,
        families[kind],
        source,
        params,
        dtype="bfloat16",
        tie_word_embeddings=text.get("tie_word_embeddings", False),
        image_token_id=151655,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        text_config=text,
        vision_config=tower,
    )


def _qwen2(hidden: int) -> dict[str, Any]:
    tower = {"embed_dim": 1280, "hidden_size": hidden, "mlp_ratio": 4, "patch_size": 14}
    return {"depth": 32, "num_heads": 16, "spatial_merge_size": 2, **tower}


def _qwen2_5(hidden: int, ffn: int = 3420) -> dict[str, Any]:
    tower = {"hidden_size": 1280, "intermediate_size": ffn, "out_hidden_size": hidden}
    return {"depth": 32, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2, **tower}


def qwen3_tower(out: int, depth: int, hidden: int, ffn: int, deep: list[int]) -> dict[str, Any]:
    """Qwen3-VL's tower; ``deep`` are the blocks whose outputs go into the language model's."""
    tower = {"hidden_size": hidden, "intermediate_size": ffn, "out_hidden_size": out}
    places = {"patch_size": 16, "spatial_merge_size": 2, "deepstack_visual_indexes": deep}
    return {"depth": depth, "num_heads": 16, **tower, **places}


_LONG: dict[str, Any] = {"max_position_embeddings": 128_000}
LONGER: dict[str, Any] = {"max_position_embeddings": 262_144}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
LARGE = (27, 1152, 4304, [8, 16, 24])
SMALL = (24, 1024, 4096, [5, 11, 17])


def _gemma3(source: str, params: int, text: dict[str, Any]) -> Source:
    return causal(
        "gemma3",
        "Gemma3ForConditionalGeneration",
        source,
        params,
        dtype="bfloat16",
        mm_tokens_per_image=256,
        image_token_index=262144,
        text_config={**text, "sliding_window": 1024},
        vision_config=tower_fields(1152, 4304, 27, 16, **_SIGLIP),
    )


VISION_LANGUAGE = {
    "llava-1.5-7b": _llava(
        "llava-hf/llava-1.5-7b-hf",
        7_063_427_072,
        text_fields(4096, 11008, 32, 32, 32, 32064, **_FOUR),
    ),
    "llava-1.5-13b": _llava(
        "llava-hf/llava-1.5-13b-hf", None, text_fields(5120, 13824, 40, 40, 40, 32064, **_FOUR)
    ),
    "qwen2-vl-2b": qwen_vl(
        "qwen2_vl",
        "Qwen/Qwen2-VL-2B-Instruct",
        2_208_985_600,
        text_fields(1536, 8960, 28, 12, 2, 151936, **TIED),
        _qwen2(1536),
    ),
    "qwen2-vl-7b": qwen_vl(
        "qwen2_vl",
        "Qwen/Qwen2-VL-7B-Instruct",
        8_291_375_616,
        text_fields(3584, 18944, 28, 28, 4, 152064),
        _qwen2(3584),
    ),
    "qwen2.5-vl-3b": qwen_vl(
        "qwen2_5_vl",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        3_754_622_976,
        text_fields(2048, 11008, 36, 16, 2, 151936, **TIED, **_LONG),
        _qwen2_5(2048),
    ),
    "qwen2.5-vl-7b": qwen_vl(
        "qwen2_5_vl",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        8_292_166_656,
        text_fields(3584, 18944, 28, 28, 4, 152064, **_LONG),
        _qwen2_5(3584),
    ),
    "qwen2.5-vl-32b": qwen_vl(
        "qwen2_5_vl",
        "Qwen/Qwen2.5-VL-32B-Instruct",
        33_452_718_336,
        text_fields(5120, 27648, 64, 40, 8, 152064, **_LONG),
        _qwen2_5(5120, 3456),
    ),
    "qwen2.5-vl-72b": qwen_vl(
        "qwen2_5_vl",
        "Qwen/Qwen2.5-VL-72B-Instruct",
        73_410_777_344,
        text_fields(8192, 29568, 80, 64, 8, 152064, **_LONG),
        _qwen2_5(8192, 3456),
    ),
    "qwen3-vl-4b": qwen_vl(
        "qwen3_vl",
        "Qwen/Qwen3-VL-4B-Instruct",
        4_437_815_808,
        text_fields(2560, 9728, 36, 32, 8, 151936, head_dim=128, **TIED, **LONGER),
        qwen3_tower(2560, *SMALL),
    ),
    "qwen3-vl-8b": qwen_vl(
        "qwen3_vl",
        "Qwen/Qwen3-VL-8B-Instruct",
        8_767_123_696,
        text_fields(4096, 12288, 36, 32, 8, 151936, head_dim=128, **LONGER),
        qwen3_tower(4096, *LARGE),
    ),
    "gemma-3-4b": _gemma3(
        "google/gemma-3-4b-it",
        4_300_079_472,
        text_fields(2560, 10240, 34, 8, 4, 262208, head_dim=256),
    ),
    "gemma-3-12b": _gemma3(
        "google/gemma-3-12b-it",
        12_187_325_040,
        text_fields(3840, 15360, 48, 16, 8, 262208, head_dim=256),
    ),
    "gemma-3-27b": _gemma3(
        "google/gemma-3-27b-it",
        27_432_406_640,
        text_fields(5376, 21504, 62, 32, 16, 262208, head_dim=128),
    ),
}

DENOISING = {
    "sdxl-unet": causal(
        "UNet2DConditionModel",
        "UNet2DConditionModel",
        "stabilityai/stable-diffusion-xl-base-1.0",
        2_567_463_684,
        sample_size=128,
        in_channels=4,
        out_channels=4,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[320, 640, 1280],
        layers_per_block=2,
        cross_attention_dim=2048,
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        use_linear_projection=True,
    ),
    "sd-1.5-unet": causal(
        "UNet2DConditionModel",
        "UNet2DConditionModel",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        859_520_964,
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
    ),
    "flux.1-dev": causal(
        "FluxTransformer2DModel",
        "FluxTransformer2DModel",
        "black-forest-labs/FLUX.1-dev",
        11_901_408_320,
        in_channels=64,
        num_layers=19,
        num_single_layers=38,
        num_attention_heads=24,
        attention_head_dim=128,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        guidance_embeds=True,
    ),
}

SEEING_AND_HEARING: dict[str, Source] = {
    **HEARING,
    **SEEING,
    **VISION_LANGUAGE,
    **DENOISING,
}
