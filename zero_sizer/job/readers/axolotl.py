"""YAML of axolotl.

Keys and defaults: axolotl-ai-cloud/axolotl at 067b021, ``src/axolotl/utils/schemas``; what they do:
``utils/config/__init__.py``, ``core/builders/base.py``, ``loaders/adapter.py``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import GPU, Checkpointing
from zero_sizer.errors import UnsupportedError
from zero_sizer.findings import Direction
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers import facts, presets, towers, trainer
from zero_sizer.job.readers.facts import Fact, LeftOut, Tool, flag, yes
from zero_sizer.job.statements import Statements
from zero_sizer.util.spelling import shown

_OWN_OPTIMIZERS = (  # schemas/enums.py, CustomSupportedOptimizers
    *("optimi_adamw", "ao_adamw_4bit", "ao_adamw_8bit", "ao_adamw_fp8", "adopt_adamw", "muon"),
    *("came_pytorch", "dion", "sinkgd", "flash_adamw", "flash_adam", "flash_sgd", "flash_sgdw"),
    *("flash_lion", "q_galore_adamw8bit"),
)
_TOOL = Tool(
    name="axolotl",
    version="(July 2026)",
    facts=(
        Fact(field="micro_batch", keys=("micro_batch_size",), default=1),
        Fact(field="grad_accum", keys=("gradient_accumulation_steps",), default=1),
        Fact(field="loaded_on", keys=(), default=GPU),  # utils/config/__init__.py:223
        Fact(field="seq_len", keys=("sequence_len",), default=512),
        Fact(
            field="optim",
            keys=("optimizer",),
            read=lambda value: None if value in _OWN_OPTIMIZERS else value,
            default="adamw_torch_fused",
        ),
        Fact(field="num_workers", keys=("dataloader_num_workers",)),
        Fact(field="prefetch", keys=("dataloader_prefetch_factor",)),
        Fact(
            field="sequences",
            keys=("sample_packing",),
            read=lambda value: "packed" if yes(value) else None,
        ),
        Fact(field="attention", keys=("attn_implementation",), read=trainer.ATTENTION),
        Fact(field="attention_kernel", keys=("attn_implementation",), read=trainer.kernel),
    ),
    left_out=(
        LeftOut(
            key="optimizer", message="is axolotl's own; torch's fused AdamW is counted instead",
            direction=Direction.EITHER, applies=lambda value: value in _OWN_OPTIMIZERS,
        ),
        LeftOut(
            key="rl", message="keeps more models or samples at once than fine-tuning does",
            direction=Direction.COST,
        ),
        LeftOut(key="fsdp", message="trains with FSDP", direction=Direction.EITHER),
        LeftOut(key="fsdp_config", message="trains with FSDP", direction=Direction.EITHER),
        LeftOut(
            key="unfrozen_parameters", message="trains only what it names",
            direction=Direction.SAVE, remedy="say the others with --freeze",
        ),
        LeftOut(
            key="activation_offloading", message="moves activations to the host",
            direction=Direction.SAVE,
        ),
        LeftOut(
            key="layer_offloading", message="moves layers to the host", direction=Direction.SAVE
        ),
        LeftOut(
            key="selective_checkpointing", message="keeps some of what is recomputed",
            direction=Direction.COST,
        ),
        LeftOut(key="tiled_mlp", message="computes in tiles", direction=Direction.SAVE),
        LeftOut(
            key="chunked_cross_entropy", message="keeps no whole logits", direction=Direction.SAVE
        ),
        LeftOut(key="lora_mlp_kernel", message="keeps less", direction=Direction.SAVE),
        LeftOut(key="lora_qkv_kernel", message="keeps less", direction=Direction.SAVE),
        LeftOut(key="lora_o_kernel", message="keeps less", direction=Direction.SAVE),
        LeftOut(key="torch_compile", message="compiles", direction=Direction.EITHER),
        LeftOut(key="fp8", message="computes in 8 bits", direction=Direction.EITHER),
        LeftOut(key="qat", message="quantizes while it trains", direction=Direction.COST),
        LeftOut(
            key="context_parallel_size", message="splits sequences", direction=Direction.SAVE,
            applies=lambda value: value not in (None, 1),
        ),
        LeftOut(
            key="sequence_parallel_degree", message="splits sequences", direction=Direction.SAVE,
            applies=lambda value: value not in (None, 1),
        ),
        LeftOut(
            key="tensor_parallel_size", message="splits layers", direction=Direction.SAVE,
            applies=lambda value: value not in (None, 1),
        ),
        LeftOut(key="tokens", message="adds rows for new tokens", direction=Direction.COST),
    ),
    known=frozenset(
        {
            *("base_model", "base_model_config", "deepspeed", "adapter", "lora_r", "lora_alpha"),
            *("lora_dropout", "lora_target_modules", "lora_target_linear", "lora_model_dir"),
            *("lora_modules_to_save", "lora_alpha_pattern", "lora_rank_pattern", "load_in_4bit"),
            *("load_in_8bit", "bf16", "fp16", "bfloat16", "float16", "gradient_checkpointing"),
            *("gradient_checkpointing_kwargs", "eval_sample_packing", "eval_sequence_len"),
            *("eval_batch_size", "peft_use_dora", "peft_use_rslora", "flash_attention"),
            *("sdp_attention", "eager_attention", "xformers_attention", "flex_attention"),
            *("liger_fused_linear_cross_entropy", "liger_rms_norm", "liger_rope"),
            *("liger_glu_activation", "liger_layer_norm", "special_tokens", "optim_args"),
            "freeze_mm_modules",
        }
    ),
)  # fmt: skip
_SWITCHES = {
    "flash_attention": "flash",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
    "flex_attention": "flash",  # both keep what flash keeps
    "xformers_attention": "flash",
}
_LIGER = ("liger_rms_norm", "liger_rope", "liger_glu_activation")
_FUSED_LOSS = "liger_fused_linear_cross_entropy"


def read(file: Document) -> Statements:
    """Reads an axolotl file.

    Raises:
        InputError: a value is wrong.
        UnsupportedError: an adapter that is not modelled.
    """
    said = trainer.statements(
        _TOOL,
        file,
        model_key="base_model",
        precision="bf16",
        checkpointing=_checkpointing(file),
        presets=presets.AXOLOTL,
    )
    workload = {
        **said.workload,
        "precision": _precision(file, said.workload["precision"]),
        **_attention(file, said),
        **_kernels(file),
    }
    kind = facts.text(file, "adapter")
    if kind not in (None, "lora", "qlora"):
        raise UnsupportedError(
            f"adapter {shown(kind)} is not modelled; lora and qlora are",
            where=file.where("adapter"),
        )
    is_frozen = flag(file, "freeze_mm_modules")
    frozen = f"freeze_mm_modules ({file.where('freeze_mm_modules')})" if is_frozen else ""
    return replace(
        said,
        workload=workload,
        adapter=_adapter(file) if kind else None,
        excluded=towers.without_axolotl_adapters(frozen) if kind and frozen else None,
        frozen=towers.of_axolotl(frozen) if frozen and not kind else None,
        quantization=_quantization(file, kind, workload["precision"].value),
    )


def _precision(file: Document, usual: Stated) -> Stated:
    """``auto``, the default, is bf16 where the GPU has it."""
    for key, precision in (("bfloat16", "bf16"), ("float16", "fp16")):
        if flag(file, key):
            return Stated(precision, file.where(key))
    return usual


def _checkpointing(file: Document) -> Stated:
    """Reentrant unless told otherwise, or where part of the model is frozen by name."""
    value = file.values.get("gradient_checkpointing")
    origin = _TOOL.default if value is None else file.where("gradient_checkpointing")
    how = trainer.kwargs(file, "gradient_checkpointing_kwargs")
    if value in ("offload", "offload_disk"):
        return Stated(Checkpointing(offload=True), origin)
    if not flag(file, "gradient_checkpointing"):
        return Stated(False, origin)
    usual = not any(file.values.get(key) for key in ("unfrozen_parameters", "rl"))
    is_reentrant = how.get("use_reentrant", usual if not how else False) is True
    where = file.where("gradient_checkpointing_kwargs") if how else origin
    return Stated(trainer.checkpointing_by(how, where, is_reentrant=is_reentrant), origin)


def _attention(file: Document, said: Statements) -> dict[str, Stated]:
    if "attention" in said.workload:
        return {}
    on = [key for key in _SWITCHES if flag(file, key)]
    return {"attention": Stated(_SWITCHES[on[0]], file.where(on[0]))} if on else {}


def _kernels(file: Document) -> dict[str, Stated]:
    """Liger's plugin: all of its kernels, or its loss alone."""
    plugins = facts.names(file, "plugins") or []
    if not any("liger" in plugin.lower() for plugin in plugins):
        return {}
    if all(flag(file, key) for key in (*_LIGER, _FUSED_LOSS)):
        return {"kernels": Stated("liger", file.where("plugins"))}
    if flag(file, _FUSED_LOSS):
        return {"loss": Stated("fused-linear", file.where(_FUSED_LOSS))}
    return {}


def _adapter(file: Document) -> Stated:
    existing = facts.text(file, "lora_model_dir")
    if existing is not None:
        return Stated(existing, file.where("lora_model_dir"))
    values: Mapping[str, Any] = file.values
    targets = facts.names(file, "lora_target_modules")
    fields = {
        "r": values.get("lora_r"),
        "target_modules": "all-linear" if flag(file, "lora_target_linear") else targets,
        "lora_alpha": values.get("lora_alpha"),
        "lora_dropout": values.get("lora_dropout"),
        "modules_to_save": facts.names(file, "lora_modules_to_save"),
        "use_dora": flag(file, "peft_use_dora") or None,
        "rank_pattern": values.get("lora_rank_pattern"),
        "layers_to_transform": values.get("peft_layers_to_transform"),
        "layers_pattern": values.get("peft_layers_pattern"),
    }
    return trainer.adapter_of(file, "adapter", fields)


def _quantization(file: Document, kind: str | None, precision: str) -> Stated | None:
    """Of qlora and lora alone, double quantized, packed into bf16 (``loaders/model.py:710``)."""
    if kind == "qlora" and flag(file, "load_in_4bit"):
        compute = {"bf16": "bfloat16", "fp16": "float16"}.get(precision, "float32")
        fields = {
            "load_in_4bit": True,
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_quant_storage": "bfloat16",
            "bnb_4bit_compute_dtype": compute,
        }
        return Stated(fields, file.where("load_in_4bit"))
    if kind == "lora" and flag(file, "load_in_8bit"):
        return Stated({"load_in_8bit": True}, file.where("load_in_8bit"))
    return None
