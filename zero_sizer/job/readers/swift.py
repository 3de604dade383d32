"""Arguments of ms-swift, in a YAML or on its command line.

Keys and defaults: modelscope/ms-swift at 3602360, ``swift/arguments`` and ``swift/trainers/
arguments.py``; the DeepSpeed configs that it brings: ``swift/config``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.config.batch import accumulation_for
from zero_sizer.config.document import Document
from zero_sizer.config.workload import GPU
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Direction
from zero_sizer.hardware.assemble import Stated
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.readers import facts, towers, trainer
from zero_sizer.job.readers.facts import Fact, LeftOut, Tool
from zero_sizer.job.statements import OfModel, Statements
from zero_sizer.job.values import Whole
from zero_sizer.util.spelling import shown

_SAMPLES = 16


_TOOL = Tool(
    name="ms-swift",
    version="(August 2026)",
    facts=(
        *trainer.trainer_facts(micro_batch=1, num_workers=1, grad_accum=None),
        Fact(field="seq_len", keys=("max_length",)),
        Fact(field="loaded_on", keys=(), default=GPU),  # swift/model/utils.py:224
        Fact(field="max_pixels", keys=("max_pixels", "MAX_PIXELS")),
        Fact(field="min_pixels", keys=("MIN_PIXELS",)),
        Fact(field="attention", keys=("attn_impl",), read=trainer.ATTENTION),
        Fact(field="attention_kernel", keys=("attn_impl",), read=trainer.kernel),
        Fact(
            field="sequences",
            keys=("packing", "padding_free"),
            read=lambda value: "packed" if facts.yes(value) else None,
        ),
    ),
    left_out=(
        *trainer.TRAINER_LEFT_OUT,
        LeftOut(
            key="rlhf_type", message="keeps more models or samples at once than fine-tuning does",
            direction=Direction.COST,
        ),
        *map(facts.videos, ("VIDEO_MAX_PIXELS", "video_max_pixels", "VIDEO_MAX_TOKEN_NUM")),
        *map(facts.videos, ("VIDEO_TOTAL_PIXELS", "FPS_MAX_FRAMES")),
        LeftOut(
            key="vit_gradient_checkpointing",
            message="checkpoints the blocks of the tower, or not, apart from the others",
            direction=Direction.EITHER,
            applies=lambda value: value is not None,
        ),
        LeftOut(key="use_galore", message="projects gradients", direction=Direction.SAVE),
        LeftOut(
            key="lisa_activated_layers", message="trains some layers at a time",
            direction=Direction.SAVE,
        ),
        LeftOut(key="optimizer", message="is a plugin", direction=Direction.EITHER),
        LeftOut(
            key="sequence_parallel_size", message="splits sequences", direction=Direction.SAVE,
            applies=lambda value: value not in (None, 1),
        ),
        LeftOut(key="zero_hpz_partition_size", message="adds a copy", direction=Direction.COST),
        LeftOut(
            key="deepspeed_autotp_size", message="splits layers", direction=Direction.SAVE,
            applies=lambda value: value not in (None, 1),
        ),
        LeftOut(
            key="freeze_parameters_ratio", message="freezes a part", direction=Direction.SAVE
        ),
        LeftOut(
            key="freeze_parameters_regex", message="freezes a part", direction=Direction.SAVE
        ),
        LeftOut(
            key="trainable_parameters_regex", message="trains a part", direction=Direction.COST
        ),
        LeftOut(
            key="tuner_backend", message="brings other kernels", direction=Direction.SAVE,
            applies=lambda value: value == "unsloth",
        ),
    ),
    known=frozenset(
        {
            *("model", "tuner_type", "train_type", "torch_dtype", "deepspeed", "bf16", "fp16"),
            *("lora_rank", "lora_alpha", "lora_dropout", "lora_bias", "target_modules"),
            *("modules_to_save", "use_dora", "use_rslora", "quant_bits", "quant_method"),
            *("bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"),
            *("bnb_4bit_quant_storage", "gradient_checkpointing", "model_type", "model_name"),
            *("gradient_checkpointing_kwargs", "vit_gradient_checkpointing", "model_author"),
            *("per_device_eval_batch_size", "max_new_tokens", "adapters", "max_model_len"),
            *("freeze_parameters", "trainable_parameters", "VIDEO_MIN_PIXELS"),
            *("IMAGE_MAX_TOKEN_NUM", "IMAGE_MIN_TOKEN_NUM", "VIDEO_MIN_TOKEN_NUM"),
            *(key for key, _, _ in towers.SWIFT_SWITCHES),
        }
    ),
)  # fmt: skip
_ON = {"enabled": "auto"}
_FP16 = {
    "enabled": "auto",
    "loss_scale": 0,
    "loss_scale_window": 1000,
    "initial_scale_power": 16,
    "hysteresis": 2,
    "min_loss_scale": 1,
}
_BATCH = {
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
_BUCKETS = {
    "allgather_partitions": True,
    "allgather_bucket_size": 2e8,
    "overlap_comm": False,
    "reduce_scatter": True,
    "reduce_bucket_size": 2e8,
    "contiguous_gradients": True,
}
_STAGE3 = {
    "overlap_comm": False,
    "contiguous_gradients": True,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": True,
}


def _preset(stage: int, device: str = "none") -> dict[str, Any]:
    place = {"device": device, "pin_memory": True}
    zero: dict[str, Any] = {"stage": stage, **(_STAGE3 if stage == 3 else _BUCKETS)}
    if stage:
        zero["offload_optimizer"] = place
    if stage == 3:
        zero["offload_param"] = place
    return {"fp16": _FP16, "bf16": _ON, "zero_optimization": zero, **_BATCH}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    **{f"zero{stage}": _preset(stage) for stage in range(4)},
    "zero2_offload": _preset(2, "cpu"),
    "zero3_offload": _preset(3, "cpu"),
}
"""DeepSpeed configs that come with ms-swift, by the name that ``deepspeed`` takes."""


def read(file: Document) -> Statements:
    """Reads ms-swift's arguments.

    Raises:
        InputError: a value is wrong.
        UnsupportedError: a tuner that is not modelled.
    """
    if file.values.get("sft_type") is not None:
        raise UnsupportedError(
            "sft_type is an argument of ms-swift 2, whose others are not read either",
            remedy="write those of ms-swift 3 and 4: model, tuner_type, deepspeed: zero2",
            where=file.where("sft_type"),
        )
    said = trainer.statements(
        _TOOL, file, model_key="model", precision="bf16", checkpointing=True, presets=PRESETS
    )
    workload = dict(said.workload)
    workload["precision"] = _precision(file, workload["precision"])
    findings = list(said.findings)
    if file.values.get(_TOKENS) is not None:
        side = _side_of_a_token(file)
        if side is None:
            findings.append(facts.at(file, _TOKENS, _NO_SIDE))
        else:
            workload |= _of_tokens(file, side, workload.get("max_pixels"))
    kind_key = "tuner_type" if file.values.get("tuner_type") is not None else "train_type"
    kind = facts.text(file, kind_key) or "lora"
    if kind not in ("full", "lora"):
        raise UnsupportedError(
            f"{kind_key} {shown(kind)} is not modelled; full and lora are",
            where=file.where(kind_key),
        )
    return replace(
        said,
        workload=workload,
        findings=tuple(findings),
        adapter=_adapter(file, kind_key) if kind == "lora" else None,
        excluded=_excluded(file) if kind == "lora" else None,
        frozen=towers.of_swift(_TOOL, file) if kind == "full" else None,
        quantization=_quantization(file, workload["precision"].value),
        on_cluster=lambda cluster: _accumulation(workload["micro_batch"].value, cluster),
    )


_TOKENS = "IMAGE_MAX_TOKEN_NUM"
_SIDES = (("qwen2", 28), ("qwen3", 32))
"""Of a square of merged patches, which is one token (qwen_vl_utils' factor)."""
_NO_SIDE = facts.not_modelled(
    f"{_TOKENS} bounds the tokens of an image, of a size that the model's name does not tell",
    Direction.SAVE,
    "say --images 1,size=HEIGHTxWIDTH",
)


def _side_of_a_token(file: Document) -> int | None:
    name = str(file.values.get("model", "")).lower().replace("-", "").replace("_", "")
    return next((side for word, side in _SIDES if word in name), None)


def _of_tokens(file: Document, side: int, said: Stated | None) -> dict[str, Stated]:
    """A bound on an image's tokens in pixels, unless ``max_pixels`` is a lower one.

    qwen_vl_utils from 0.0.14 on reads these tokens, and MAX_PIXELS no longer.
    """
    where = file.where(_TOKENS)
    try:
        tokens = Whole(2**20)(file.values[_TOKENS])
    except ValueError as error:
        raise InputError(f"{_TOKENS}: {error}", where=where) from None
    found = Stated(tokens * side**2, where)
    is_lower = said is not None and "max_pixels" in file.values and said.value < found.value
    return {} if is_lower else {"max_pixels": found}


def _accumulation(micro_batch: int, cluster: Cluster) -> dict[str, Stated]:
    """16 samples a step over all ranks, where nothing is said (``trainers/arguments.py:283``)."""
    steps = accumulation_for(_SAMPLES, micro_batch, cluster.world_size)
    return {"grad_accum": Stated(steps, f"{_TOOL.default}: {_SAMPLES} samples a step")}


def _precision(file: Document, usual: Stated) -> Stated:
    """``torch_dtype``, where ``bf16`` and ``fp16`` are not said; else the model's own."""
    if any(file.values.get(key) is not None for key in ("bf16", "fp16")):
        return usual
    named = facts.text(file, "torch_dtype")
    words = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
    if named in words:
        return Stated(words[named], file.where("torch_dtype"))
    return usual


def _adapter(file: Document, key: str) -> Stated:
    values = file.values
    targets = facts.names(file, "target_modules") or ["all-linear"]
    fields = {
        "r": values.get("lora_rank", 8),
        "target_modules": "all-linear" if targets == ["all-linear"] else targets,
        "lora_alpha": values.get("lora_alpha"),
        "lora_dropout": values.get("lora_dropout", 0.05),
        "bias": values.get("lora_bias"),
        "modules_to_save": facts.names(file, "modules_to_save"),
        "use_dora": facts.flag(file, "use_dora") or None,
    }
    return trainer.adapter_of(file, key, fields)


def _excluded(file: Document) -> OfModel | None:
    """Of ``all-linear`` alone: modules that are named get their adapters everywhere."""
    targets = facts.names(file, "target_modules") or ["all-linear"]
    return towers.without_swift_adapters(_TOOL, file) if "all-linear" in targets else None


def _quantization(file: Document, precision: str) -> Stated | None:
    bits, method = file.values.get("quant_bits"), file.values.get("quant_method")
    if bits is None and method is None:
        return None
    where = file.where("quant_bits" if bits is not None else "quant_method")
    if method not in (None, "bnb") or bits not in (4, 8):
        raise UnsupportedError(
            f"quant_bits {shown(bits)} by {shown(method)} is not modelled; 4 and 8 by bnb are",
            where=where,
        )
    if bits == 8:
        return Stated({"load_in_8bit": True}, where)
    usual = {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float32")
    fields = {
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": facts.flag(file, "bnb_4bit_use_double_quant", default=True),
        "bnb_4bit_compute_dtype": facts.text(file, "bnb_4bit_compute_dtype") or usual,
    }
    storage = facts.text(file, "bnb_4bit_quant_storage")
    return Stated(fields | ({"bnb_4bit_quant_storage": storage} if storage else {}), where)
