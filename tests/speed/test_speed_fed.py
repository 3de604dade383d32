"""Work of models that are fed images or sound, against torch's own count of FLOPs.

The classes are transformers', small in width and depth, and run forward with eager attention, whose
products torch counts in full: the square of causal attention as well.
"""

import json
from dataclasses import replace

import pytest

from zero_sizer import models
from zero_sizer.models.feeds import Said, feed_of
from zero_sizer.models.feeds.records import Images
from zero_sizer.speed.fed import _work
from zero_sizer.util.identity import Identity

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "max_position_embeddings": 512,
}
TOWER = {
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
QWEN = {
    "depth": 3,
    "num_heads": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [1],
}
WHISPER = {
    "d_model": 64,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 144,
    "decoder_ffn_dim": 160,
    "vocab_size": 320,
    "num_mel_bins": 20,
    "max_source_positions": 60,
    "max_target_positions": 40,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}


def seeing(kind, head, text, tower, **more):
    return {
        "model_type": kind,
        "architectures": [head],
        "text_config": {**TEXT, **text},
        "vision_config": {**TOWER, **tower},
        "tie_word_embeddings": kind in ("gemma3", "paligemma"),
        "image_token_id": 9,
        "image_token_index": 9,
        **more,
    }


LLAVA = seeing("llava", "LlavaForConditionalGeneration",
               {"model_type": "llama", "num_key_value_heads": 4},
               {"model_type": "clip_vision_model"})  # fmt: skip
GROUPED = {**LLAVA, "text_config": {**LLAVA["text_config"], "num_key_value_heads": 2}}
GEMMA = seeing("gemma3", "Gemma3ForConditionalGeneration", {"model_type": "gemma3_text"},
               {"model_type": "siglip_vision_model", "vision_use_head": False},
               mm_tokens_per_image=4)  # fmt: skip
PALI = seeing("paligemma", "PaliGemmaForConditionalGeneration", {"model_type": "gemma"},
              {"model_type": "siglip_vision_model", "vision_use_head": False,
               "projection_dim": 64},
              projection_dim=64, hidden_size=64, vocab_size=320)  # fmt: skip
INTERN = seeing("internvl", "InternVLForConditionalGeneration", {"model_type": "qwen2"},
                {"model_type": "internvl_vision", "image_size": [56, 56],
                 "patch_size": [14, 14]}, downsample_ratio=0.5)  # fmt: skip
MISTRAL = seeing("mistral3", "Mistral3ForConditionalGeneration", {"model_type": "mistral"},
                 {"model_type": "pixtral", "head_dim": 12}, spatial_merge_size=2)  # fmt: skip
QWEN2_5 = seeing("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration",
                 {"model_type": "qwen2_5_vl_text", "rope_scaling": ROPE},
                 {**QWEN, "out_hidden_size": 64})  # fmt: skip
QWEN2 = seeing("qwen2_vl", "Qwen2VLForConditionalGeneration",
               {"model_type": "qwen2_vl_text", "rope_scaling": ROPE},
               {**QWEN, "hidden_size": 64, "embed_dim": 48})  # fmt: skip
QWEN3 = seeing("qwen3_vl", "Qwen3VLForConditionalGeneration",
               {"model_type": "qwen3_vl_text", "rope_scaling": ROPE},
               {**QWEN, "out_hidden_size": 64, "deepstack_visual_indexes": [0, 1],
                "num_position_embeddings": 64})  # fmt: skip
VIT = {**TOWER, "model_type": "vit", "architectures": ["ViTForImageClassification"]}
DINO = {**TOWER, "model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]}
CLIP = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "text_config": {**TEXT, "num_key_value_heads": 4, "max_position_embeddings": 40},
    "vision_config": TOWER,
    "projection_dim": 32,
}
SIGLIP = {
    **CLIP,
    "model_type": "siglip",
    "architectures": ["SiglipModel"],
    "text_config": {**CLIP["text_config"], "hidden_size": 48},
}
LISTENS = {**WHISPER, "model_type": "whisper",
           "architectures": ["WhisperForConditionalGeneration"]}  # fmt: skip

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 16,
    "block_out_channels": [32, 64, 96],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 3],
    "attention_head_dim": [4, 4, 4],
    "cross_attention_dim": 48,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}
OLDER_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 16,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 4,
    "cross_attention_dim": 48,
}
FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "pooled_projection_dim": 40,
    "axes_dims_rope": [8, 12, 12],
    "guidance_embeds": True,
}
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 16,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "caption_projection_dim": 64,
    "joint_attention_dim": 48,
    "pooled_projection_dim": 40,
    "pos_embed_max_size": 16,
}

T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 144,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "vocab_size": 320,
    "decoder_start_token_id": 0,
}
BART = {
    **{k: v for k, v in WHISPER.items() if "positions" not in k and "mel" not in k},
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "is_encoder_decoder": True,
    "max_position_embeddings": 64,
}
WAVES = {
    "model_type": "wav2vec2",
    "architectures": ["Wav2Vec2ForSequenceClassification"],
    "hidden_size": 64,
    "intermediate_size": 144,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "conv_dim": [16, 16, 16, 16, 16, 16, 16],
    "classifier_proj_size": 32,
    "num_conv_pos_embedding_groups": 4,
    "num_conv_pos_embeddings": 8,
}

CASES = {
    "t5": (T5, {"target_len": 24}, 40),
    "bart": (BART, {"target_len": 24}, 40),
    "wav2vec 2.0": (WAVES, {"audio_seconds": 1.0}, 1),
    "unet of sdxl": (UNET, None, 1),
    "unet of stable diffusion": (OLDER_UNET, None, 1),
    "flux": (FLUX, Images(1, 128, 192), 1),
    "stable diffusion 3": (SD3, None, 1),
    "llava": (LLAVA, Images(1), 40),
    "llava, two images": (LLAVA, Images(2), 64),
    "llava, fewer heads of keys": (GROUPED, Images(1), 40),
    "gemma 3": (GEMMA, Images(1), 32),
    "paligemma": (PALI, Images(1), 32),
    "internvl": (INTERN, Images(1), 32),
    "mistral 3": (MISTRAL, Images(1, 56, 56), 32),
    "qwen 2": (QWEN2, Images(1, 168, 224), 96),
    "qwen 2.5": (QWEN2_5, Images(1, 280, 336), 160),
    "qwen 2.5, two images": (QWEN2_5, Images(2, 168, 224), 128),
    "qwen 3": (QWEN3, Images(1, 168, 224), 96),
    "no image": (QWEN2_5, Images(0), 64),
    "vit": (VIT, None, 1),
    "dinov2": (DINO, None, 1),
    "clip": (CLIP, None, 24),
    "siglip": (SIGLIP, None, 24),
    "whisper": (LISTENS, None, 24),
}


def read(tmp_path, fields):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    return models.load(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_forward_has_the_flops_that_torch_counts(case, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    from zero_sizer.simulator.batches import batch
    from zero_sizer.tracing.build import build, config_of

    fields, images, tokens = case
    spec = read(tmp_path, fields)
    said = images if isinstance(images, dict) else {"images": images}
    feed = feed_of(spec, Said(**said))
    work = _work(Identity(spec), Identity(feed), tokens)
    counted = tokens * (work.block_flops + work.head_flops + work.attention_flops * tokens)
    kind = "sdpa" if "_class_name" in fields else "eager"
    model = build(config_of(spec.hf_config), torch.float32, torch.device("cpu"), kind)
    given = batch(feed, 1, tokens, torch.device("cpu"), torch.float32)
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        model.eval()(**given)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [("vision_tower",), ("vision_tower", "language_model")])
def test_a_frozen_tower_runs_forward_alone(frozen, tmp_path):
    """Forward and backward of transformers' class; a frozen decoder still passes gradients on."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    from zero_sizer.simulator.batches import batch
    from zero_sizer.tracing.build import build, config_of

    spec, tokens = read(tmp_path, LLAVA), 40
    parameters = tuple(
        replace(t, trainable=not any(name in t.name for name in frozen)) for t in spec.parameters
    )
    spec = replace(spec, parameters=parameters)
    feed = feed_of(spec, Said(images=Images(1)))
    work = _work(Identity(spec), Identity(feed), tokens)
    products = (3 - work.frozen_share) * (work.block_flops + work.head_flops)
    counted = tokens * (products + 3 * work.attention_flops * tokens)
    model = build(config_of(spec.hf_config), torch.float32, torch.device("cpu"), "eager").eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    given = batch(feed, 1, tokens, torch.device("cpu"), torch.float32)
    with FlopCounterMode(display=False) as counter:
        model(**given).loss.backward()
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)
