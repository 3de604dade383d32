"""TrainingArguments of transformers, and what trl adds to them.

Defaults: transformers 5.23 ``training_args.py``; trl 1.16 ``trainer/base_config.py``,
``sft_config.py``, ``model_config.py`` (``get_peft_config``, ``get_quantization_config``).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import NON_REENTRANT, REENTRANT, Checkpointing
from zero_sizer.errors import InputError
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers import facts, paths
from zero_sizer.job.readers.facts import Fact, LeftOut, Tool, flag, yes
from zero_sizer.job.statements import Statements

_ATTENTION = {
    "flash_attention_2": "flash",
    "flash_attention_3": "flash",
    "kernels-community/flash-attn2": "flash",
    "kernels-community/flash-attn3": "flash",
    "kernels-community/vllm-flash-attn3": "flash",
    "flash_attn": "flash",
    # These save what flash saves: torch 2.13 _higher_order_ops/flex_attention.py
    # (FlexAttentionAutogradOp), xformers ops/fmha (out and log-sum-exp).
    "flex_attention": "flash",
    "xformers": "flash",
    "sdpa": "sdpa",
    "eager": "eager",
    "auto": None,
}
ATTENTION = facts.word_of(_ATTENTION)
_KERNELS = {
    "flash_attention_2": "flash-2",
    "flash_attention_3": "flash-3",
    "kernels-community/flash-attn2": "flash-2",
    "kernels-community/flash-attn3": "flash-3",
    "kernels-community/vllm-flash-attn3": "flash-3",
    "fa2": "flash-2",
    "fa3": "flash-3",
}


def kernel(value: Any) -> str | None:
    """Generation of FlashAttention that a tool's word names; None where it names none."""
    return _KERNELS.get(str(value).strip().lower())


def trainer_facts(**defaults: Any) -> tuple[Fact, ...]:
    """Facts of every tool on the Trainer; ``defaults`` are those that the tool has of its own."""
    table = (
        Fact(field="micro_batch", keys=("per_device_train_batch_size",), default=8),
        Fact(field="grad_accum", keys=("gradient_accumulation_steps",), default=1),
        Fact(field="num_workers", keys=("dataloader_num_workers",), default=0),
        Fact(field="prefetch", keys=("dataloader_prefetch_factor",)),
        Fact(
            field="kernels",
            keys=("use_liger_kernel", "enable_liger_kernel"),
            read=lambda value: "liger" if yes(value) else None,
        ),
        Fact(field="optim", keys=("optim",), default="adamw_torch_fused"),
    )
    return tuple(replace(f, default=defaults.get(f.field, f.default)) for f in table)


TRAINER_LEFT_OUT = (
    LeftOut(
        key="vision_tower", message="puts a vision tower and its images before the model",
        direction=Direction.COST,
        remedy="`zero-sizer dryrun --how simulated -- train.py` runs the script with its images",
    ),
    LeftOut(
        key="torch_compile", message="compiles the model, which moves what is kept",
        direction=Direction.EITHER,
    ),
    LeftOut(
        key="auto_find_batch_size", message="halves the batch where memory ends",
        direction=Direction.SAVE, remedy="leave it out to see the batch that is stated",
    ),
    LeftOut(
        key="activation_offloading", message="moves activations to the host",
        direction=Direction.SAVE,
    ),
    LeftOut(
        key="fsdp", message="trains with FSDP, not DeepSpeed", direction=Direction.EITHER,
        remedy="leave it out",
    ),
    LeftOut(
        key="optim_args", message="asks for states that are not counted",
        direction=Direction.COST,
        applies=lambda value: any(word in str(value) for word in ("momentum", "centered")),
        remedy="name the optimizer in the DeepSpeed config with its params",
    ),
    LeftOut(
        key="optim_target_modules", message="projects gradients of these modules",
        direction=Direction.EITHER,
    ),
)  # fmt: skip
_TRL_LEFT_OUT = (
    LeftOut(
        key="lora_target_parameters", message="adapts parameters that are no linear layer",
        direction=Direction.COST,
    ),
    LeftOut(
        key="use_vllm", message="keeps a copy of the model for generation",
        direction=Direction.COST,
        applies=lambda value: value is True or str(value).lower() == "true",
    ),
    LeftOut(
        key="num_generations", message="generates and compares several answers to a prompt",
        direction=Direction.COST,
    ),
    LeftOut(
        key="beta", message="keeps a reference model beside the one that is trained",
        direction=Direction.COST,
    ),
)  # fmt: skip
_CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
_SILENT = frozenset(
    {
        *_CHECKPOINTING,
        "activation_checkpointing_kwargs",
        *("gradient_checkpointing", "gradient_checkpointing_kwargs", "bf16", "fp16", "deepspeed"),
        *("per_device_eval_batch_size", "optim_args", "bf16_full_eval", "fp16_full_eval"),
        *("dataloader_pin_memory", "dataloader_drop_last", "dataloader_persistent_workers"),
        *("torch_compile_mode", "torch_compile_backend", "fsdp_config", "model_name_or_path"),
    }
)
_PIXELS = (
    Fact(field="max_pixels", keys=("max_pixels", "image_max_pixels", "MAX_PIXELS")),
    Fact(field="min_pixels", keys=("min_pixels", "image_min_pixels", "MIN_PIXELS")),
)
_VIDEOS = tuple(
    map(
        facts.videos,
        ("video_max_pixels", "VIDEO_MAX_PIXELS", "VIDEO_MAX_TOKEN_NUM", "FPS_MAX_FRAMES"),
    )
)
TRAINING_ARGUMENTS = Tool(
    name="TrainingArguments",
    version="(transformers 5.23)",
    facts=(
        *trainer_facts(),
        Fact(field="seq_len", keys=("max_seq_length", "model_max_length", "block_size")),
        # of scripts by others: QwenLM/Qwen3-VL's qwen-vl-finetune, 2U1/Qwen-VL-Series-Finetune
        *_PIXELS,
        Fact(field="attention", keys=("attn_implementation",), read=ATTENTION),
        Fact(field="attention_kernel", keys=("attn_implementation",), read=kernel),
    ),
    left_out=(*TRAINER_LEFT_OUT, *_VIDEOS),
    known=_SILENT,
)
TRL = Tool(
    name="trl",
    version="1.16",
    facts=(
        *trainer_facts(),
        Fact(field="seq_len", keys=("max_length", "max_seq_length"), default=1024),
        *_PIXELS,
        Fact(field="attention", keys=("attn_implementation",), read=ATTENTION),
        Fact(field="attention_kernel", keys=("attn_implementation",), read=kernel),
        Fact(
            field="sequences",
            keys=("packing", "padding_free"),
            read=lambda value: "packed" if yes(value) else None,
        ),
    ),
    left_out=(*TRAINER_LEFT_OUT, *_TRL_LEFT_OUT),
    known=_SILENT
    | {
        *("use_peft", "lora_r", "lora_alpha", "lora_dropout", "lora_target_modules"),
        *("lora_modules_to_save", "use_dora", "use_rslora", "lora_task_type", "load_in_4bit"),
        *("load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"),
        *("bnb_4bit_quant_storage", "max_prompt_length", "max_completion_length"),
    },
)

# of transformers' examples, and of scripts by others (2U1/Qwen-VL-Series-Finetune, philschmid)
_MODEL_KEYS = ("model_name_or_path", "model_id", "model_path", "model_name")


def read_arguments(file: Document) -> Statements:
    """Reads TrainingArguments; a model stands beside them in scripts of transformers'."""
    key = next((key for key in _MODEL_KEYS if file.values.get(key)), _MODEL_KEYS[0])
    return statements(TRAINING_ARGUMENTS, file, model_key=key)


LOSS_IN_CHUNKS = replace(
    facts.not_modelled(
        "trl's SFTTrainer (1.16) computes its loss in chunks, without the whole logits that are "
        "counted here",
        Direction.SAVE,
    ),
    code="loss-in-chunks",
    severity=Severity.NOTE,
)


def read_trl(file: Document) -> Statements:
    """Reads a configuration of trl's scripts."""
    said = statements(
        TRL, file, model_key="model_name_or_path", precision="bf16", checkpointing=True
    )
    return replace(
        said,
        adapter=_adapter(file),
        quantization=_quantization(file),
        findings=(*said.findings, LOSS_IN_CHUNKS),
    )


def statements(
    tool: Tool,
    file: Document,
    *,
    model_key: str,
    precision: str = "fp32",
    checkpointing: bool | Stated = False,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Statements:
    """Reads a file on the Trainer, but for adapter and quantization.

    Args:
        tool: whose.
        file: the file.
        model_key: key that names the model.
        precision: the tool's default.
        checkpointing: the tool's default, or what the file says where its words are its own.
        presets: DeepSpeed configs that come with the tool.
    """
    document, notes = paths.config(file, "deepspeed", tool.name, presets)
    workload = facts.workload(tool, file)
    workload["precision"] = precision_of(tool, file, precision)
    workload["checkpointing"] = (
        checkpointing
        if isinstance(checkpointing, Stated)
        else checkpointing_of(tool, file, checkpointing)
    )
    found: list[Finding] = [*facts.remarks(tool, file), *notes]
    return Statements(
        source=file.source,
        tool=tool.name,
        document=document,
        model=paths.model(file, model_key),
        workload=workload,
        findings=tuple(found),
    )


def precision_of(tool: Tool, file: Document, default: str) -> Stated:
    """The precision by ``bf16`` and ``fp16``.

    Raises:
        InputError: both are on.
    """
    on = [name for name in ("bf16", "fp16") if _is_on(file, name)]
    if len(on) == 2:
        raise InputError("bf16 and fp16 are both on", where=file.where("fp16"))
    if on:
        return Stated(on[0], file.where(on[0]))
    if file.values.get("bf16") in (None, "auto"):
        where = file.where("bf16") if file.values.get("bf16") else tool.default
        return Stated(default, where)
    return Stated("fp32", file.where("bf16"))


def _is_on(file: Document, name: str) -> bool:
    """A switch that also knows axolotl's ``auto`` and ``full``."""
    value = file.values.get(name)
    return value == "full" or (value != "auto" and flag(file, name))


def checkpointing_of(tool: Tool, file: Document, default: bool) -> Stated:
    """Activation checkpointing, and by what; transformers 5.23 has a new name for it."""
    said = facts.first(file, _CHECKPOINTING)
    key = said[0] if said else _CHECKPOINTING[0]
    is_on = flag(file, key, default)
    origin = file.where(key) if said else tool.default
    how_said = facts.first(file, [f"{name}_kwargs" for name in _CHECKPOINTING])
    how = kwargs(file, how_said[0]) if how_said else {}
    if not is_on:
        return Stated(False, origin)
    where = file.where(how_said[0]) if how_said else origin
    is_reentrant = how.get("use_reentrant") is True
    return Stated(checkpointing_by(how, where, is_reentrant=is_reentrant), origin)


def checkpointing_by(
    how: Mapping[str, Any], where: str, *, is_reentrant: bool
) -> Checkpointing | bool:
    """Checkpointing as ``gradient_checkpointing_kwargs`` have it; True for the plain kind.

    transformers 5.23 modeling_utils.py:3110 takes ``every_n_layers`` and ``offload``.

    Raises:
        InputError: ``every_n_layers`` is no whole number from 1 on.
    """
    every = how.get("every_n_layers", 1)
    if type(every) is not int or every < 1:
        raise InputError(f"every_n_layers is {every!r}, not a whole number from 1 on", where=where)
    by = REENTRANT if is_reentrant else NON_REENTRANT
    found = Checkpointing(every=every, offload=how.get("offload") is True, by=by)
    return found if found.about else True


def kwargs(file: Document, key: str) -> Mapping[str, Any]:
    """A mapping, or the JSON of one, as the command line takes it.

    Raises:
        InputError: something else.
    """
    value = file.values.get(key)
    if isinstance(value, str):
        import json

        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = file.values[key]
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{key} is not a mapping", where=file.where(key))
    return value


def adapter_of(file: Document, key: str, fields: Mapping[str, Any]) -> Stated:
    """An adapter of these fields of ``peft.LoraConfig``; what is None is peft's own."""
    return Stated({k: v for k, v in fields.items() if v is not None}, file.where(key))


def _adapter(file: Document) -> Stated | None:
    if not flag(file, "use_peft"):
        return None
    targets = facts.names(file, "lora_target_modules")
    value = file.values
    fields = {
        "r": value.get("lora_r", 16),
        "target_modules": targets[0] if targets == ["all-linear"] else targets,
        "lora_alpha": value.get("lora_alpha"),
        "lora_dropout": value.get("lora_dropout", 0.05),
        "modules_to_save": facts.names(file, "lora_modules_to_save"),
        "use_dora": flag(file, "use_dora") or None,
    }
    return adapter_of(file, "use_peft", fields)


def _quantization(file: Document) -> Stated | None:
    four, eight = flag(file, "load_in_4bit"), flag(file, "load_in_8bit")
    if not four and not eight:
        return None
    storage = facts.text(file, "bnb_4bit_quant_storage")
    fields = {
        "load_in_4bit": four,
        "load_in_8bit": eight,
        "bnb_4bit_use_double_quant": flag(file, "use_bnb_nested_quant"),
        **({"bnb_4bit_quant_storage": storage} if storage else {}),
        "bnb_4bit_compute_dtype": facts.text(file, "dtype") or "float32",
    }
    return Stated(fields, file.where("load_in_4bit" if four else "load_in_8bit"))
