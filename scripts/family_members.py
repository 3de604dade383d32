"""Models that the families of several stacks are traced at: widths that no two products share."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.records import Images, Said

LAYERS = 6
_HEADS = ((7, 40), (11, 80), (13, 136))  # heads, and the dimensions of each
_OTHER_HEADS = ((9, 56), (5, 104), (10, 72))
_FFN, _OTHER_FFN = (592, 1072, 1328), (424, 952, 1576)
_PATCH = (4, 6, 14)
_SIDES = ((32, 40), (72, 60), (140, 224))  # of images, in pixels
_WINDOW = (8, 16, 24)  # patches of a window's side; kernels pad none of their squares
_IDS = {"image_token_id": 7, "vision_start_token_id": 8, "vision_end_token_id": 9,
        "video_token_id": 10}  # fmt: skip
_VOCAB = (1016, 1528, 2024)


def whisper(number: int) -> dict[str, Any]:
    """Fields of a Whisper."""
    heads, head_dim = _HEADS[number]
    return {
        "d_model": heads * head_dim,
        "encoder_layers": LAYERS,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": _FFN[number],
        "decoder_ffn_dim": _OTHER_FFN[number],
        "vocab_size": _VOCAB[number],
        "num_mel_bins": (24, 56, 88)[number],
        "max_source_positions": (100, 148, 212)[number],
        "max_target_positions": (456, 520, 648)[number],
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "decoder_start_token_id": 0,
    }


def _stack(heads: int, head_dim: int, ffn: int) -> dict[str, Any]:
    return {
        "hidden_size": heads * head_dim,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
    }


def _tower(number: int) -> dict[str, Any]:
    return {
        **_stack(*_OTHER_HEADS[number], _OTHER_FFN[number]),
        "image_size": (80, 90, 154)[number],
        "patch_size": (8, 6, 11)[number],
        "num_channels": 3,
    }


def _text(number: int) -> dict[str, Any]:
    """A language model whose heads need not fill its hidden size; all have keys of their own."""
    heads, head_dim = _HEADS[number]
    return {
        "hidden_size": heads * (56, 48, 72)[number],
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": head_dim,
        "intermediate_size": _FFN[number],
        "vocab_size": _VOCAB[number],
    }


def _grouped(number: int) -> dict[str, Any]:
    """A language model with fewer heads of keys, rotated by three parts of a position."""
    heads, kv_heads = ((6, 2), (15, 3), (10, 5))[number]
    head_dim = _HEADS[number][1]
    return {
        **_text(number),
        "hidden_size": heads * head_dim,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": ([4, 8, 8], [8, 16, 16], [20, 24, 24])[number],
        },
    }


def qwen2_vl(number: int) -> dict[str, Any]:
    """Fields of a Qwen2-VL."""
    text = _grouped(number)
    text.pop("head_dim")
    heads, head_dim = _OTHER_HEADS[number]
    return {
        "text_config": text,
        "vision_config": {
            "embed_dim": heads * head_dim,
            "hidden_size": text["hidden_size"],
            "mlp_ratio": (3, 5, 2)[number],
            "num_heads": heads,
            "depth": LAYERS,
            "patch_size": _PATCH[number],
            "temporal_patch_size": (2, 5, 7)[number],
        },
        **_IDS,
    }


def qwen2_5_vl(number: int) -> dict[str, Any]:
    """Fields of a Qwen2.5-VL: its tower's blocks see windows, or (2, 4) the whole image."""
    found = qwen2_vl(number)
    tower = found["vision_config"]
    tower["out_hidden_size"] = tower["hidden_size"]
    tower["hidden_size"] = tower.pop("embed_dim")
    tower.pop("mlp_ratio")
    tower["intermediate_size"] = _OTHER_FFN[number]
    tower["depth"] = 5
    tower["fullatt_block_indexes"] = [2, 4]
    tower["window_size"] = _WINDOW[number] * tower["patch_size"]
    return found


def qwen3_vl(number: int) -> dict[str, Any]:
    """Fields of a Qwen3-VL: a tower with blocks of each kind, whose heads fill no hidden size."""
    found = qwen2_5_vl(number)
    text, tower = found["text_config"], found["vision_config"]
    for field in ("window_size", "fullatt_block_indexes"):
        tower.pop(field)
    text["hidden_size"] = tower["out_hidden_size"] = _text(number)["hidden_size"]
    text["head_dim"] = _HEADS[number][1]
    text["rope_parameters"]["mrope_section"] = ([8, 6, 6], [16, 12, 12], [24, 22, 22])[number]
    tower["depth"] = 11
    tower["deepstack_visual_indexes"] = [2, 5, 8]
    tower["num_position_embeddings"] = (14**2, 20**2, 26**2)[number]
    return found


def windowed(number: int, images: int, windows: int) -> Said:
    """Images of so many whole windows, in a row."""
    side = _WINDOW[number] * _PATCH[number]
    return Said(images=Images(images, side, windows * side))


def vit(number: int) -> dict[str, Any]:
    """Fields of a ViT or DeiT."""
    return {**_tower(number), "num_labels": (10, 33, 101)[number]}


def dinov2(number: int) -> dict[str, Any]:
    """Fields of a DINOv2."""
    return {**vit(number), "mlp_ratio": (3, 4, 5)[number]}


def llava(number: int) -> dict[str, Any]:
    """Fields of a LLaVA."""
    return {"text_config": _text(number), "vision_config": _tower(number), "image_token_index": 7}


def clip(number: int) -> dict[str, Any]:
    """Fields of a CLIP, or of its tower of images with labels."""
    text = {
        **_stack(*_HEADS[number], _FFN[number]),
        "vocab_size": _VOCAB[number],
        "max_position_embeddings": (456, 520, 648)[number],
    }
    return {
        "text_config": text,
        "vision_config": _tower(number),
        "projection_dim": (208, 344, 616)[number],
        "num_labels": (10, 33, 101)[number],
    }


def siglip(number: int) -> dict[str, Any]:
    """Fields of a SigLIP, or of its tower of images with labels."""
    found = clip(number)
    found.pop("projection_dim")
    found["text_config"]["projection_size"] = found["vision_config"]["hidden_size"]
    return found


MEMBERS = {
    "clip": clip,
    "siglip": siglip,
    "whisper": whisper,
    "vit": vit,
    "deit": vit,
    "dinov2": dinov2,
    "llava": llava,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}
# Structures of well-known models that are not bundled.
FURTHER: Mapping[str, Mapping[str, Any]] = {
    "deit": {
        "model_type": "deit",
        "architectures": ["DeiTForImageClassification"],
        "hidden_size": 768,
    },
    "clip-gelu": {  # LAION's
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "text_config": {"hidden_act": "gelu"},
        "vision_config": {"hidden_act": "gelu"},
    },
    "clip-classifier": {
        "model_type": "clip",
        "architectures": ["CLIPForImageClassification"],
        "vision_config": {"hidden_size": 768},
    },
    "siglip-classifier": {
        "model_type": "siglip",
        "architectures": ["SiglipForImageClassification"],
        "vision_config": {"hidden_size": 768},
    },
}
_SEEN = tuple(Said(images=Images(1, *size)) for size in _SIDES)
SAID: Mapping[str, tuple[Said, ...]] = {
    "qwen2_5_vl": tuple(windowed(number, 1, 2) for number in range(3)),
    "qwen2_vl": _SEEN,
    "qwen3_vl": _SEEN,
}
LAID_OUT_ONLY = frozenset({"deit"})  # their layouts are written, no profiles
COUNTS = (1, 2, 3, 4)  # of images, where what runs depends on it
# Families whose ZeRO-3 linear layers hold in 16 and 32 bits at every peak what torch's hold.
AS_TORCHS = frozenset({"qwen2_vl", "qwen2_5_vl"})
