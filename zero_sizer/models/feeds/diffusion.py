"""Denoisers of diffusers: latents, a time, and an encoded prompt."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.fields import whole
from zero_sizer.models.feeds.records import Feed, Images, Input, Said

_PROMPT = 77  # tokens of CLIP's text encoders
_T5_PROMPT = 512  # of FLUX.1-dev's T5
_LATENT = 8  # pixels of a latent's side: the VAEs of Stable Diffusion and FLUX
_TIME_IDS = 6  # original size, crop, target size


def denoiser(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """The batch of diffusers' training scripts; the loss is the mean square of the error."""
    made = _DENOISERS.get(str(fields.get("_class_name", "")))
    if made is None:
        return None
    images = said.images or Images()
    height = images.height or made.pixels(fields)
    width = images.width or height
    inputs = made.inputs(fields, height // _LATENT, width // _LATENT)
    return Feed(
        inputs=inputs,
        fewest=0,
        target=inputs[0].name,
        options=made.options,
        brief=f"1 image of {height} x {width}",
        about=f"1 image of {height} x {width}, {height // _LATENT} x {width // _LATENT} latents",
        said={"images": Images(1, height, width).about},
        free=("images",),
    )


class _Unet:
    options: Mapping[str, Any] = {}

    def pixels(self, fields: Mapping[str, Any]) -> int:
        return whole(fields, "sample_size", default=64) * _LATENT

    def inputs(self, fields: Mapping[str, Any], height: int, width: int) -> tuple[Input, ...]:
        channels = whole(fields, "in_channels", default=4)
        width_of_prompt = whole(fields, "cross_attention_dim", default=768)
        found = (
            Input(name="sample", shape=(channels, height, width)),
            Input(name="timestep", is_integer=True),
            Input(name="encoder_hidden_states", shape=(_PROMPT, width_of_prompt)),
        )
        if fields.get("addition_embed_type") != "text_time":
            return found
        added = whole(fields, "projection_class_embeddings_input_dim", default=2816)
        pooled = added - _TIME_IDS * whole(fields, "addition_time_embed_dim", default=256)
        return (
            *found,
            Input(name="added_cond_kwargs.text_embeds", shape=(pooled,)),
            Input(name="added_cond_kwargs.time_ids", shape=(_TIME_IDS,)),
        )


class _Flux:
    options: Mapping[str, Any] = {}

    def pixels(self, fields: Mapping[str, Any]) -> int:
        return 1024

    def inputs(self, fields: Mapping[str, Any], height: int, width: int) -> tuple[Input, ...]:
        rows = (height // 2) * (width // 2)  # latents are packed by squares of two
        prompt = whole(fields, "joint_attention_dim", default=4096)
        found = (
            Input(name="hidden_states", shape=(rows, whole(fields, "in_channels", default=64))),
            Input(name="timestep"),
            Input(name="encoder_hidden_states", shape=(_T5_PROMPT, prompt)),
            Input(
                name="pooled_projections",
                shape=(whole(fields, "pooled_projection_dim", default=768),),
            ),
            Input(name="img_ids", shape=(3,), rows=rows, once=True),
            Input(name="txt_ids", shape=(3,), rows=_T5_PROMPT, once=True),
        )
        if not fields.get("guidance_embeds"):
            return found
        return (*found, Input(name="guidance"))


class _StableDiffusion3:
    options: Mapping[str, Any] = {}

    def pixels(self, fields: Mapping[str, Any]) -> int:
        return whole(fields, "sample_size", default=128) * _LATENT

    def inputs(self, fields: Mapping[str, Any], height: int, width: int) -> tuple[Input, ...]:
        prompt = whole(fields, "joint_attention_dim", default=4096)
        pooled = whole(fields, "pooled_projection_dim", default=2048)
        return (
            Input(
                name="hidden_states",
                shape=(whole(fields, "in_channels", default=16), height, width),
            ),
            Input(name="timestep", is_integer=True),
            Input(name="encoder_hidden_states", shape=(_PROMPT + _T5_PROMPT // 2, prompt)),
            Input(name="pooled_projections", shape=(pooled,)),
        )


_DENOISERS: Mapping[str, _Unet | _Flux | _StableDiffusion3] = {
    "UNet2DConditionModel": _Unet(),
    "FluxTransformer2DModel": _Flux(),
    "SD3Transformer2DModel": _StableDiffusion3(),
}
