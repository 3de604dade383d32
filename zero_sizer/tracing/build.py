"""Models to trace: transformers' own classes at full width, with as many blocks as needed."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from zero_sizer.errors import UnsupportedError
from zero_sizer.models.changes.quantization import converted
from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.sources.advice import without_advice
from zero_sizer.models.sources.diffusers_class import CLASS, is_diffusers
from zero_sizer.models.sources.diffusers_class import build as build_with_diffusers
from zero_sizer.models.sources.untrusted import harmless, offline
from zero_sizer.models.spec import ModelSpec
from zero_sizer.simulator.undo import Patches

_NOT_READ = ("model_type", "dtype", "quantization_config")
_DEPTHS = ("num_hidden_layers", "depth", "encoder_layers", "decoder_layers")
ATTENTION = {"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}


class Changes(NamedTuple):
    """Changes to a model before it is trained.

    Attributes:
        quantization: ``Request.quantization``, None where weights are as they are.
        adapter: ``peft.LoraConfig`` arguments, None to train every weight.
    """

    quantization: Mapping[str, Any] | None = None
    adapter: Mapping[str, Any] | None = None


UNCHANGED = Changes()


def changes_of(spec: ModelSpec) -> Changes:
    """Changes that ``spec`` makes to the model of its config."""
    quantization = None
    if spec.quantization is not None:
        quantization = {**spec.quantization.to_json(), "modules": converted(spec)}
    return Changes(quantization, spec.adapter.to_peft() if spec.adapter is not None else None)


def config_of(fields: Mapping[str, Any]) -> Any:
    """Config object of a config.json's fields: transformers', or diffusers' fields as they are."""
    from transformers import CONFIG_MAPPING

    kept = harmless(fields, "the model's config")
    if is_diffusers(fields):
        return kept
    values = {key: value for key, value in kept.items() if key not in _NOT_READ}
    model_type = str(fields.get("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedError(f"transformers has no model type {model_type!r}")
    config = CONFIG_MAPPING[model_type](**values)
    config.use_cache = False  # as the Trainer sets it
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0  # to shift the labels with
    if config.is_encoder_decoder and config.pad_token_id is None:
        config.pad_token_id = 0
    return config


def model_class(config: Any) -> Any:
    """The class that is trained: the config's own, else the family's causal language model."""
    if isinstance(config, Mapping):
        without_advice()  # diffusers imports bitsandbytes
        import diffusers

        return getattr(diffusers, config[CLASS])
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    if config.model_type in FAMILIES:
        return getattr(transformers, FAMILIES[config.model_type].head)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    raise UnsupportedError(f"model type {config.model_type} has no causal language model")


def build(config: Any, dtype: torch.dtype, where: torch.device, attention: str) -> Any:
    """The model of ``config`` without values, in training mode.

    Raises:
        UnsupportedError: it has no such attention.
    """
    with offline(), _without_values(), torch.device(where):
        if isinstance(config, Mapping):
            if attention != ATTENTION["sdpa"] and where.type != "meta":  # of shapes alone
                raise UnsupportedError(f"no {attention} attention in diffusers")
            model = build_with_diffusers(config)
            return torch.nn.Module.to(model, dtype).train()  # without advice to load it otherwise
        try:
            model = model_class(config)._from_config(
                config, attn_implementation=attention, dtype=dtype
            )
        except ValueError as error:
            raise UnsupportedError(f"no {attention} attention: {error}") from error
    if any(parameter.device.type != where.type for parameter in model.parameters()):
        model = model.to(where)  # torch.Tensor(n), as wav2vec 2.0 calls it, knows no default device
    return model.train()


def change(model: Any, changes: Changes) -> Any:
    """The model with packed weights and an adapter, which peft makes in fp32.

    Args:
        model: the base, on any device.
        changes: which.
    """
    if changes.quantization is not None:
        from zero_sizer.simulator import quantized_layers

        present = dict(model.named_modules())  # blocks may have been cut
        names = [name for name in changes.quantization["modules"] if name in present]
        quantized_layers.quantize(model, changes.quantization, names)
    if changes.adapter is None:
        return model
    without_advice()  # so does peft
    import peft

    with warnings.catch_warnings(), torch.device(model.device):
        warnings.simplefilter("ignore", FutureWarning)  # peft's calls of transformers
        return peft.get_peft_model(model, peft.LoraConfig(**changes.adapter)).train()


def cast(model: Any, dtype: torch.dtype) -> None:
    """All parameters to one dtype, as DeepSpeed's engine casts them."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def block_names(model: Any) -> list[str]:
    """Qualified names of the layers that gradient checkpointing wraps, in the order they run."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, GradientCheckpointingLayer)
    ]


@contextmanager
def _without_values() -> Iterator[None]:
    from transformers import PreTrainedModel

    changed = Patches()
    changed.set(PreTrainedModel, "initialize_weights", lambda self: None)
    try:
        yield
    finally:
        changed.undo()


def kinds(model: Any, names: list[str]) -> list[Any]:
    """Keys that tell blocks of ``model`` apart: class, parameters, kind of attention."""
    modules, outside = dict(model.named_modules()), followed(model)
    found = []
    for name in names:
        module = modules[name]
        shapes = tuple((key, tuple(value.shape)) for key, value in module.named_parameters())
        stack, _, number = name.rpartition(".")
        owner = modules[stack.rpartition(".")[0]]
        depth = len(modules[stack])
        kind = _attention_of(owner, int(number), depth)
        kind = f"{kind} followed" if int(number) in outside.get(stack, ()) else kind
        found.append((type(module).__name__, shapes, kind))
    return found


def followed(model: Any) -> dict[str, tuple[int, ...]]:
    """List of blocks -> numbers of those after which something runs outside.

    Qwen3-VL's tower merges what some of its blocks return, too, and adds that to what the first
    blocks of its language model return.
    """
    tower = getattr(getattr(model, "config", None), "vision_config", None)
    deep = tuple(sorted(getattr(tower, "deepstack_visual_indexes", None) or ()))
    if not deep:
        return {}
    return {"model.visual.blocks": deep, "model.language_model.layers": tuple(range(len(deep)))}


def _attention_of(owner: Any, number: int, depth: int) -> str:
    """Kind of attention of block ``number``, where the config of its stack tells them apart."""
    config = getattr(owner, "config", None)
    layer_types = getattr(config, "layer_types", None) or ()
    whole = getattr(config, "fullatt_block_indexes", None) or ()  # of Qwen2.5-VL's tower
    rotated = getattr(config, "no_rope_layers", None) or ()  # 0 where a layer rotates nothing
    kind = layer_types[number] if len(layer_types) == depth else ""
    kind = f"{kind} unrotated" if len(rotated) >= depth and not rotated[number] else kind
    return f"{kind} full" if number in whole else kind


def has_input_of_each_block(config: Any) -> bool:
    """True if one table holds inputs of all blocks, as in Gemma 3n and 4 E2B: none can be left."""
    if isinstance(config, Mapping):
        return False
    return bool(getattr(config.get_text_config(), "hidden_size_per_layer_input", None))


def cut(model: Any, depths: Mapping[str, int]) -> None:
    """Leaves the first blocks of each stack, so many as ``depths`` says by its name."""
    for name, depth in depths.items():
        stack, owner = model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])
        config = getattr(owner, "config", None)
        for key in _DEPTHS:  # hidden states are counted from the last one by it
            if getattr(config, key, None) == len(stack):
                setattr(config, key, depth)
        del stack[depth:]


_LOCAL = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


def windows(config: Any) -> list[int]:
    """Sequence lengths from which on attention is local, where the config has such layers."""
    if isinstance(config, Mapping):
        return []
    text = config.get_text_config(decoder=True)
    layer_types = getattr(text, "layer_types", None)
    kinds_ = ["sliding_attention"] if layer_types is None else layer_types
    found = {getattr(text, key, None) for kind, key in _LOCAL.items() if kind in kinds_}
    return sorted(int(window) for window in found if window)


def shorten(config: Any, depths: list[int]) -> None:
    """Cuts ``config`` to stacks of ``depths`` blocks (encoder first)."""
    layer_types = getattr(config, "layer_types", None)
    config.num_hidden_layers = depths[0]
    if len(depths) > 1:
        config.num_decoder_layers = depths[1]
    if isinstance(layer_types, list):
        config.layer_types = layer_types[: depths[0]]


def checkpoint(model: Any) -> None:
    """Gradient checkpointing as the Trainer switches it on."""
    if hasattr(model, "enable_gradient_checkpointing"):  # diffusers' name of it
        model.enable_gradient_checkpointing()
    else:
        model.activation_checkpointing_enable()


def batch(b: int, s: int, where: torch.device) -> dict[str, Any]:
    """Token ids and labels; no attention mask, as for packed or equally long samples."""
    ids = torch.zeros((b, s), dtype=torch.long, device=where)
    return {"input_ids": ids, "labels": torch.zeros_like(ids)}
