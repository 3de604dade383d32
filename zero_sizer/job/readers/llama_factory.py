"""YAML and JSON of LLaMA-Factory.

Keys and defaults: hiyouga/LLaMA-Factory at ff6d4d1, ``src/llamafactory/hparams``; what they do:
``model/adapter.py``, ``model/model_utils/checkpointing.py``, ``quantization.py``, ``attention.py``.
"""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.config.document import Document
from zero_sizer.config.workload import GPU, GPU_FP32, REENTRANT, Checkpointing
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers import facts, presets, towers, trainer
from zero_sizer.job.readers.facts import Fact, LeftOut, Tool, flag
from zero_sizer.job.statements import OfModel, Statements
from zero_sizer.models.feeds.records import TRAINER
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.spelling import shown

_STAGES = ("sft", "pt")
_OF_BITS = ("quantization_method", "quantization_type", "double_quantization")
_TOOL = Tool(
    name="LLaMA-Factory",
    version="(August 2026)",
    facts=(
        *trainer.trainer_facts(),
        Fact(field="seq_len", keys=("cutoff_len",), default=2048),
        Fact(field="max_pixels", keys=("image_max_pixels",), default=768 * 768),
        Fact(field="min_pixels", keys=("image_min_pixels",), default=32 * 32),
        Fact(field="scaled_by", keys=(), default=TRAINER),  # data/mm_plugin.py:218
        Fact(
            field="attention",
            keys=("flash_attn",),
            read=facts.word_of(
                {"fa2": "flash", "fa3": "flash", "sdpa": "sdpa", "disabled": "eager", "auto": None}
            ),
        ),
        Fact(field="attention_kernel", keys=("flash_attn",), read=trainer.kernel),
        Fact(
            field="sequences",
            keys=("neat_packing",),
            read=lambda value: "packed" if facts.yes(value) else None,
        ),
    ),
    left_out=(
        *trainer.TRAINER_LEFT_OUT,
        LeftOut(
            key="stage", message="keeps more models or samples at once than fine-tuning does",
            direction=Direction.COST, applies=lambda value: value not in _STAGES,
        ),
        LeftOut(
            key="use_galore", message="projects gradients", direction=Direction.SAVE,
            remedy="LLaMA-Factory refuses it with DeepSpeed: leave it out",
        ),
        LeftOut(
            key="use_apollo", message="projects gradients", direction=Direction.SAVE,
            remedy="LLaMA-Factory refuses it with DeepSpeed: leave it out",
        ),
        LeftOut(key="use_badam", message="trains a block at a time", direction=Direction.SAVE),
        LeftOut(
            key="use_adam_mini", message="keeps fewer second moments", direction=Direction.SAVE
        ),
        LeftOut(key="use_muon", message="brings its own Muon", direction=Direction.EITHER),
        LeftOut(key="use_unsloth", message="brings other kernels", direction=Direction.SAVE),
        LeftOut(
            key="use_unsloth_gc", message="moves checkpoints to the host", direction=Direction.SAVE
        ),
        LeftOut(key="shift_attn", message="changes the attention", direction=Direction.EITHER),
        LeftOut(
            key="mixture_of_depths", message="skips layers for some tokens",
            direction=Direction.EITHER,
        ),
        LeftOut(
            key="use_llama_pro", message="trains blocks that it puts between the model's",
            direction=Direction.EITHER,
        ),
        LeftOut(key="fp8", message="computes in 8 bits", direction=Direction.EITHER),
        LeftOut(key="resize_vocab", message="adds rows for new tokens", direction=Direction.COST),
        LeftOut(
            key="upcast_layernorm", message="keeps layer norms in fp32", direction=Direction.COST
        ),
        LeftOut(key="use_kt", message="runs experts on the host", direction=Direction.SAVE),
        facts.videos("video_max_pixels"),
        LeftOut(key="use_asft_loss", message="keeps a reference", direction=Direction.COST),
    ),
    known=frozenset(
        {
            *("model_name_or_path", "deepspeed", "bf16", "fp16", "pure_bf16", "finetuning_type"),
            *("lora_rank", "lora_alpha", "lora_dropout", "lora_target", "additional_target"),
            *("use_dora", "quantization_bit", *_OF_BITS),
            *("disable_gradient_checkpointing", "use_reentrant_gc"),
            *("freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules"),
            *("per_device_eval_batch_size", "gradient_checkpointing"),
            *("gradient_checkpointing_kwargs", "adapter_name_or_path", "packing"),
            *(key for key, _, _ in towers.FACTORY_SWITCHES),
            *("video_min_pixels", "video_fps", "video_maxlen"),
        }
    ),
)  # fmt: skip


def read(file: Document) -> Statements:
    """Reads a LLaMA-Factory file.

    Raises:
        InputError: a value is wrong.
        UnsupportedError: an adapter that is not modelled.
    """
    said = trainer.statements(
        _TOOL,
        file,
        model_key="model_name_or_path",
        checkpointing=_checkpointing(file),
        presets=presets.FACTORY,
    )
    workload = dict(said.workload)
    if flag(file, "pure_bf16"):
        workload["precision"] = Stated("bf16", file.where("pure_bf16"))
    workload["loaded_on"] = _loaded_on(file)
    is_packed = flag(file, "packing", default=file.values.get("stage") == "pt")
    if is_packed and "sequences" not in workload:
        key = "packing" if file.values.get("packing") is not None else "stage"
        workload["sequences"] = Stated("equal", file.where(key))
    kind = facts.text(file, "finetuning_type") or "lora"
    if kind not in ("full", "lora", "freeze"):
        raise UnsupportedError(
            f"finetuning_type {shown(kind)} is not modelled; full, lora and freeze are",
            where=file.where("finetuning_type"),
        )
    return replace(
        said,
        workload=workload,
        findings=(*said.findings, *_not_quantized(file)),
        adapter=_adapter(file) if kind == "lora" else None,
        excluded=towers.without_adapters(_TOOL, file) if kind == "lora" else None,
        quantization=_quantization(file, workload["precision"].value),
        frozen=None if kind == "lora" else _frozen(file, kind),
    )


def _loaded_on(file: Document) -> Stated:
    """To the rank's GPU, where weights that are trained whole are cast to fp32.

    ``hparams/parser.py:646`` and ``model/adapter.py:48``; not at stage 3, which has zero.Init.
    """
    if facts.text(file, "finetuning_type") in ("full", "freeze"):
        for key in ("pure_bf16", "use_badam"):
            if flag(file, key):
                return Stated(GPU, file.where(key))
        return Stated(GPU_FP32, file.where("finetuning_type"))
    return Stated(GPU, _TOOL.default)


def _checkpointing(file: Document) -> Stated:
    """On unless disabled, by torch's reentrant function unless told otherwise."""
    key = "disable_gradient_checkpointing"
    origin = _TOOL.default if file.values.get(key) is None else file.where(key)
    if flag(file, key):
        return Stated(False, origin)
    if flag(file, "use_reentrant_gc", default=True):
        return Stated(Checkpointing(by=REENTRANT), origin)
    return Stated(True, origin)


def _adapter(file: Document) -> Stated:
    existing = facts.text(file, "adapter_name_or_path")
    if existing is not None and not flag(file, "create_new_adapter"):
        return Stated(existing, file.where("adapter_name_or_path"))
    targets = facts.names(file, "lora_target") or ["all"]
    fields = {
        "r": file.values.get("lora_rank", 8),
        "target_modules": "all-linear" if targets == ["all"] else targets,
        "lora_alpha": file.values.get("lora_alpha"),
        "lora_dropout": file.values.get("lora_dropout"),
        "modules_to_save": facts.names(file, "additional_target"),
        "use_dora": flag(file, "use_dora") or None,
    }
    return trainer.adapter_of(file, "finetuning_type", fields)


def _quantization(file: Document, precision: str) -> Stated | None:
    """bitsandbytes', packed into the dtype that is computed in (``quantization.py:179``)."""
    bits = file.values.get("quantization_bit")
    if bits is None:
        return None
    where = file.where("quantization_bit")
    method = str(file.values.get("quantization_method") or "bnb").lower()
    if method not in ("bnb", "bitsandbytes") or bits not in (4, 8):
        raise UnsupportedError(
            f"quantization_bit {shown(bits)} by {shown(method)} is not modelled; 4 and 8 by "
            "bitsandbytes are",
            where=where,
        )
    if bits == 8:
        return Stated({"load_in_8bit": True}, where)
    compute = {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float32")
    fields = {
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": flag(file, "double_quantization", default=True),
        "bnb_4bit_quant_storage": compute,
        "bnb_4bit_compute_dtype": compute,
    }
    return Stated(fields, where)


def _not_quantized(file: Document) -> Iterator[Finding]:
    """Words of bitsandbytes without the one that switches it on (``quantization.py:177``)."""
    stated = [key for key in _OF_BITS if facts.is_on(file.values.get(key))]
    if stated and file.values.get("quantization_bit") is None:
        yield facts.at(file, stated[0], Finding(
            code="not-quantized",
            severity=Severity.WARNING,
            message=f"LLaMA-Factory quantizes where quantization_bit says so, and does not read "
            f"{', '.join(stated)} without it: weights are as they are, and this is no QLoRA",
            remedy="quantization_bit: 4 packs them; else leave these out",
        ))  # fmt: skip


def _frozen(file: Document, kind: str) -> OfModel:
    """Parts by their switches, and of ``freeze`` all but some layers (``adapter.py:57``).

    Layers are the last, or the first where the number is negative.
    """
    if kind != "freeze":
        return towers.of_factory(_TOOL, file)
    key = "freeze_trainable_layers"
    count = file.values.get(key, 2)
    if isinstance(count, bool) or not isinstance(count, int):
        raise InputError(f"{key}: {shown(count)} is not a whole number", where=file.where(key))
    modules = facts.names(file, "freeze_trainable_modules") or ["all"]
    extra = facts.names(file, "freeze_extra_modules") or []

    def trained(spec: ModelSpec) -> list[str]:
        layers = spec.arch.num_layers or 0
        chosen = range(max(0, layers - count), layers) if count > 0 else range(min(-count, layers))
        return [f".{i}.{'' if m == 'all' else m}" for i in chosen for m in modules] + extra

    where = file.where(key) if file.values.get(key) is not None else file.where("finetuning_type")
    return towers.of_factory(_TOOL, file, trained, where)
