"""Building the model as the user's script would."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from zero_sizer.dryrun.simulated import checkpointing
from zero_sizer.dryrun.task import Task
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.changes.records import Freeze
from zero_sizer.models.feeds import Feed
from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.sources.diffusers_class import build as build_with_diffusers
from zero_sizer.models.sources.diffusers_class import is_diffusers
from zero_sizer.models.sources.untrusted import harmless, offline
from zero_sizer.simulator import batches
from zero_sizer.simulator.operators import flash
from zero_sizer.simulator.undo import Patches

_16_BIT = ("bf16", "fp16", "torch_autocast")  # sections whose forward hands kernels 16 bits


def build(task: Task, *, with_values: bool = False) -> Any:
    """The model, on the host or partitioned by ``zero.Init``, in training mode.

    Args:
        task: what to build.
        with_values: whether the weights will be computed with; fake ones never are.

    Raises:
        InputError: the factory fails, or transformers has no such model.
        UnsupportedError: the model has no causal or other head with a loss.
    """
    if task.hf_config:
        with offline():
            model = _from_config(task, with_values)
    elif task.parameters:
        model = _from_shapes(task)
    else:
        with _zero_init(task):
            model = _from_factory(task.factory)
    if task.quantization is not None:
        model = _quantized(model, task.quantization, infers=task.new_tokens is not None)
    if task.lora is not None:
        # peft gathers what it reads (DoRA's norms) where transformers knows of ZeRO-3
        with _transformers_zero_init(task) if task.hf_config else nullcontext():
            model = _with_lora(model, task.lora)
    for name, parameter in model.named_parameters() if task.freeze else ():
        if Freeze(task.freeze).takes(name):
            parameter.requires_grad_(False)
    if task.checkpointing:
        checkpointing.enable(model, task)
    return model.train(task.new_tokens is None)


@contextmanager
def _zero_init(task: Task) -> Iterator[None]:
    if not task.zero_init:
        yield
        return
    import deepspeed

    with deepspeed.zero.Init(config_dict_or_path=dict(task.config)):
        yield


def _from_config(task: Task, with_values: bool) -> Any:
    from transformers import CONFIG_MAPPING

    fields = harmless(task.hf_config, "the model's config")
    if is_diffusers(fields):
        return _from_diffusers(task, fields, with_values)
    fields.pop("quantization_config", None)  # else transformers asks for bitsandbytes
    model_type = str(fields.pop("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedError(f"transformers has no model type {model_type!r}")
    config = CONFIG_MAPPING[model_type](**fields)
    # The Trainer switches the generation cache off; with it every key and value would stay.
    config.use_cache = task.new_tokens is not None
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0  # a checkpoint's generation config would say which
    dtype = task.built_dtype or fields.get("dtype") or "float32"
    kwargs = {"dtype": getattr(torch, str(dtype).removeprefix("torch."))}
    model_class = _model_class(config)
    attention = _attention(task, model_class, fake=not with_values)
    with _transformers_zero_init(task), _without_values():
        if task.zero_init or with_values:
            return model_class._from_config(config, attn_implementation=attention, **kwargs)
        with torch.device("meta"):  # as from_pretrained does: what is tied is never made twice
            model = model_class._from_config(config, attn_implementation=attention, **kwargs)
    if task.quantization is not None:
        return model
    return _with_storage(model, "cpu")


def _from_diffusers(task: Task, fields: Mapping[str, Any], with_values: bool) -> Any:
    """As from_pretrained makes it: on the host, under ``zero.Init`` only where the script says."""
    with _zero_init(task):
        if task.zero_init or with_values:
            return build_with_diffusers(fields)
        with torch.device("meta"):
            model = build_with_diffusers(fields)
    return _with_storage(model, "cpu")


def _with_storage(model: Any, where: Any) -> Any:
    """A model on the meta device gets storage on a device, tied tensors once."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = _like(tensor, where)
                    tensors[name] = made[id(tensor)]
    return model


def attention_packages(task: Task) -> AbstractContextManager[None]:
    """While entered, transformers finds the package that the job's attention needs."""
    return flash.installed() if task.hf_config and task.attention == "flash" else nullcontext()


def _attention(task: Task, model_class: Any, *, fake: bool) -> str:
    """What transformers calls the implementation, or the next that the model has."""
    is_16bit = any((task.config.get(key) or {}).get("enabled") for key in _16_BIT)
    is_16bit |= task.new_tokens is not None and task.built_dtype in ("bfloat16", "float16")
    has_flash = fake and is_16bit and getattr(model_class, "_supports_flash_attn", False)
    if task.attention == "flash" and has_flash:
        return "flash_attention_2"
    has_sdpa = getattr(model_class, "_supports_sdpa", False)
    return "sdpa" if task.attention != "eager" and has_sdpa else "eager"


def _like(tensor: Any, where: Any) -> Any:
    # not empty_like, which asks for the values of a buffer that is a constant (Gemma's scale)
    shape, stride = tensor.shape, tensor.stride()
    empty = torch.empty_strided(shape, stride, dtype=tensor.dtype, device=where)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty


def _model_class(config: Any) -> Any:
    import transformers

    for name in config.architectures or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    if config.model_type in FAMILIES:  # T5's config.json need not name its class
        return getattr(transformers, FAMILIES[config.model_type].head)
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) in mapping:
        return mapping[type(config)]
    raise UnsupportedError(f"model type {config.model_type} has no causal language model")


@contextmanager
def _transformers_zero_init(task: Task) -> Iterator[None]:
    """What the Trainer sets up first: transformers then builds under ``zero.Init`` on its own."""
    if not task.zero_init:
        yield
        return
    from transformers.integrations import deepspeed as integration

    # transformers keeps a weak reference only: the object must live while the model is built.
    config = integration.HfDeepSpeedConfig(dict(task.config))
    try:
        yield
    finally:
        del config
        integration.unset_hf_deepspeed_config()


@contextmanager
def _without_values() -> Iterator[None]:
    """Weights have no values here, so drawing them would only take time."""
    from transformers import PreTrainedModel

    patches = Patches()
    patches.set(PreTrainedModel, "initialize_weights", lambda self: None)
    try:
        yield
    finally:
        patches.undo()


def _from_factory(reference: str) -> Any:
    from zero_sizer.models.sources.torch_module import build_from_factory

    if not reference:
        raise InputError("a simulated run needs a model with a config or a factory")
    return build_from_factory(reference, device=None)


def _from_shapes(task: Task) -> Any:
    from zero_sizer.dryrun.shapes_model import ShapesModel

    with _zero_init(task):
        return ShapesModel(task.parameters)


def _quantized(model: Any, how: Mapping[str, Any], *, infers: bool) -> Any:
    """The base with packed weights, which bitsandbytes makes on the GPU as it reads them."""
    from zero_sizer.simulator import device
    from zero_sizer.simulator.quantized_layers import quantize

    quantize(model, how, how["modules"], infers=infers)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    where = torch.device(device.NAME, 0)
    is_read = any(parameter.is_meta for parameter in model.parameters())
    return _with_storage(model, where) if is_read else model.to(where)


def _with_lora(model: Any, settings: Mapping[str, Any]) -> Any:
    import peft

    return peft.get_peft_model(model, peft.LoraConfig(**settings))


def batch(task: Task, where: torch.device) -> dict[str, Any]:
    """Inputs of one micro step, on the GPU: token ids and labels, or as the feed says."""
    feed = feed_of(task)
    if feed is not None:
        return batches.batch(feed, task.micro_batch, task.seq_len, where, _input_dtype(task))
    shape = (task.micro_batch, task.seq_len)
    ids = torch.zeros(shape, dtype=torch.long, device=where)
    found = {"input_ids": ids, "labels": torch.zeros_like(ids)}
    if task.sequences != "equal" and task.attention != "flash" and task.hf_config:
        found["attention_mask"] = torch.ones_like(ids)
    return found


def feed_of(task: Task) -> Feed | None:
    """Inputs of a sample beside or instead of token ids and labels."""
    return None if task.feed is None else Feed.from_json(task.feed)


def _input_dtype(task: Task) -> Any:
    """Dtype that the Trainer casts inputs to (trainer.py, ``_prepare_input``): the engine's."""
    dtypes = (("bf16", torch.bfloat16), ("fp16", torch.float16))
    on = (dtype for key, dtype in dtypes if (task.config.get(key) or {}).get("enabled"))
    return next(on, torch.float32)


def client_optimizer(task: Task, model: Any) -> Any:
    """The optimizer a user's script hands to DeepSpeed, or None when the config names one.

    The Trainer's own code chooses and makes it; accelerate's swaps it under optimizer offload.

    Raises:
        UnsupportedError: its package is not installed, or transformers refuses it.
    """
    if "optimizer" in task.config:
        return None
    offload = task.config.get("zero_optimization", {}).get("offload_optimizer") or {}
    swaps = offload.get("device", "none") != "none" and task.config.get(
        "zero_force_ds_cpu_optimizer", True
    )
    groups = _weight_decay_groups(model)
    if swaps and task.optimizer.startswith("adam"):
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam(groups)
    optimizer = _trainer_optimizer(task, model, groups)
    if swaps:
        from accelerate.utils.deepspeed import map_pytorch_optim_to_deepspeed

        return map_pytorch_optim_to_deepspeed(optimizer)
    return optimizer


def _trainer_optimizer(task: Task, model: Any, groups: list[dict[str, Any]]) -> Any:
    """The optimizer that ``TrainingArguments.optim`` names, with the Trainer's arguments."""
    from transformers import Trainer, TrainingArguments

    try:
        arguments = TrainingArguments(
            output_dir="unused",
            optim=task.optimizer,
            optim_target_modules="all-linear",
            use_cpu=True,
        )
        made, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    except (ImportError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnsupportedError(f"optim {task.optimizer}: {reason}") from None
    if "model" in options:  # LOMO's, which walk the model themselves, and ask for stage 3
        with _trainer_knows(task.config):
            return made(**options)
    return made(options.pop("params", groups), **options)


@contextmanager
def _trainer_knows(config: Mapping[str, Any]) -> Iterator[None]:
    """Inside, transformers says whether the config has stage 3, as it does under the Trainer."""
    from transformers.integrations import deepspeed

    kept = deepspeed.HfDeepSpeedConfig(dict(config))  # is known to transformers while it lives
    try:
        yield
    finally:
        del kept
        deepspeed.unset_hf_deepspeed_config()


def _weight_decay_groups(model: Any) -> list[dict[str, Any]]:
    """The two groups of the Trainer: biases and norms are not decayed (trainer.py:1408)."""
    from transformers.trainer import Trainer

    decayed = set(Trainer.get_decay_parameter_names(None, model))
    groups: tuple[list[Any], list[Any]] = ([], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name not in decayed].append(parameter)
    return [{"params": group, "weight_decay": 0.0} for group in groups if group]
