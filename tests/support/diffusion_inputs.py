"""A folder of Stable Diffusion 1.5: its five configs, its weights' headers, captioned pictures.

Structure: the configs of runwayml/stable-diffusion-v1-5 (unet, vae, text_encoder, scheduler).
"""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "sample_size": 512,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
TEXT_ENCODER = {
    "model_type": "clip_text_model",
    "architectures": ["CLIPTextModel"],
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "vocab_size": 49408,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
UNET_NUMEL, VAE_NUMEL, TEXT_NUMEL = 859_520_964, 83_653_863, 123_060_480
"""Published parameter counts: 860 M of the U-Net, 84 M of the autoencoder, 123 M of CLIP ViT-L/14's
text model."""


TINY: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        **UNET,
        "sample_size": 8,
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    },
    "vae": {
        **VAE,
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 8,
    },
    "text_encoder": {
        **TEXT_ENCODER,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 1024,
    },
}


def write(folder: Path) -> None:
    """Everything: the model in ``sd``, a tiny one with weights in ``tiny``, ``captioned``."""
    parts = {"unet": UNET, "vae": VAE, "text_encoder": TEXT_ENCODER}
    _model(folder / "sd", parts)
    _model(folder / "tiny", TINY)
    _tiny_weights(folder / "tiny")
    _pictures(folder / "captioned")


def _tiny_weights(folder: Path) -> None:
    import diffusers
    import torch
    import transformers

    text = transformers.CLIPTextConfig.from_dict(dict(TINY["text_encoder"]))
    models = {"text_encoder": transformers.CLIPTextModel(text)}
    for name in ("unet", "vae"):
        cls = getattr(diffusers, TINY[name]["_class_name"])
        models[name] = cls.from_config(TINY[name])
    draw = torch.Generator().manual_seed(0)
    for name, model in models.items():
        # Values of our own: what a process has patched may leave them as memory was.
        for weight in model.parameters():
            is_matrix = weight.dim() > 1
            values = torch.randn(weight.shape, generator=draw) if is_matrix else torch.ones(1)
            weight.data.copy_(0.05 * values)
        model.save_pretrained(folder / name)


def _model(folder: Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    import diffusers
    import torch

    for name, config in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        if "_class_name" in config:
            cls = getattr(diffusers, str(config["_class_name"]))
            with torch.device("meta"):
                shapes = {key: t.shape for key, t in cls.from_config(config).state_dict().items()}
            headers_only(folder / name / "diffusion_pytorch_model.safetensors", shapes)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    _tokenizer(folder / "tokenizer")


def headers_only(path: Path, shapes: Mapping[str, Any]) -> None:
    """A safetensors file without its weights: reading its header is all that is needed."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def _tokenizer(folder: Path) -> None:
    from transformers import CLIPTokenizer

    names = ["<|startoftext|>", *"abcdefghijklmnopqrstuvwxyz", "<|endoftext|>"]
    vocab = {name: i for i, name in enumerate(names)}
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77).save_pretrained(folder)


def _pictures(folder: Path) -> None:
    """Pictures and their ``metadata.jsonl``, as ``datasets``' imagefolder reads them."""
    from PIL import Image

    folder.mkdir()
    rows = []
    for i in range(32):
        Image.new("RGB", (600, 540), (i, 2 * i, 3 * i)).save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": "a cat runs"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
