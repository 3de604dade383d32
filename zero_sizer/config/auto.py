"""Filling "auto" as Hugging Face does, and saying where nobody does.

Follows transformers 5.23.0 ``integrations/deepspeed.py`` (``trainer_config_process``,
``trainer_config_finalize``) and accelerate 1.15.0 ``DeepSpeedPlugin.__post_init__`` and
``Accelerator._prepare_deepspeed``, which a Trainer run passes through afterwards. The batch keys
are in ``batch.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding, Severity
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:  # importing the models package costs a third of a cold start
    from zero_sizer.models.spec import ModelSpec

BUCKET = "zero_optimization.reduce_bucket_size"
PREFETCH = "zero_optimization.stage3_prefetch_bucket_size"
PERSISTENCE = "zero_optimization.stage3_param_persistence_threshold"
HIDDEN_KEYS: dict[str, tuple[Callable[[int], int], str]] = {
    BUCKET: (lambda hidden: hidden * hidden, "hidden_size^2 = {0}^2"),
    PREFETCH: (lambda hidden: int(0.9 * hidden * hidden), "0.9 x hidden_size^2 = 0.9 x {0}^2"),
    PERSISTENCE: (lambda hidden: 10 * hidden, "10 x hidden_size = 10 x {0}"),
}
# Filled from TrainingArguments or the DummyOptim and DummyScheduler; no tensor depends on them.
NO_MEMORY = (
    "optimizer.params.lr",
    "optimizer.params.betas",
    "optimizer.params.eps",
    "optimizer.params.weight_decay",
    "scheduler.params.warmup_min_lr",
    "scheduler.params.warmup_max_lr",
    "scheduler.params.warmup_num_steps",
    "scheduler.params.total_num_steps",
)
# DeepSpeedPlugin's own defaults (accelerate/utils/dataclasses.py:1196-1229).
PLUGIN_DEFAULTS: dict[str, Any] = {
    "zero_optimization.stage": 2,
    "zero_optimization.offload_optimizer.device": "none",
    "zero_optimization.offload_param.device": "none",
    "zero_optimization.offload_optimizer.nvme_path": "none",
    "zero_optimization.offload_param.nvme_path": "none",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save": False,
}
PRECISIONS = {"bf16.enabled": "bf16", "fp16.enabled": "fp16"}


@dataclass(frozen=True)
class Fill:
    """Value that "auto" becomes at one path; None when nothing stated decides it."""

    value: Any
    origin: str


@dataclass
class Fills:
    """The filled keys by path as written, keys that Hugging Face adds, and the findings."""

    by_path: dict[str, Fill] = field(default_factory=dict)
    added: dict[str, Fill] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def fill(document: Document, workload: Workload, model: "ModelSpec | None") -> Fills:
    """Fill every "auto" of the config that Hugging Face fills, except the batch triangle.

    Args:
        document: the config.
        workload: the flags (``precision``).
        model: the model, for its hidden size; None when not given.
    """
    fills = Fills()
    auto = [path for path, value in document.leaves() if value == "auto"]
    _fill_hidden(document, [path for path in auto if path in HIDDEN_KEYS], model, fills)
    _fill_precision(document, workload, fills)
    for path in auto:
        origin = f'"auto" ({document.where(path)})'
        if path in NO_MEMORY:
            text = f"{origin}: filled by the Hugging Face Trainer; does not affect memory"
            fills.by_path[path] = Fill(None, text)
        elif path == "gradient_clipping":
            text = f"{origin} -> 1.0, max_grad_norm's default (Hugging Face Trainer)"
            fills.by_path[path] = Fill(1.0, text)
        elif path == "steps_per_print":
            fills.by_path[path] = Fill(None, f"{origin}: accelerate turns the printing off")
        elif path in PLUGIN_DEFAULTS:
            text = f"{origin} -> accelerate's default"
            fills.by_path[path] = Fill(PLUGIN_DEFAULTS[path], text)
            if path == "zero_optimization.stage":
                fills.findings.append(_auto_stage(document, path))
    return fills


def hidden_size(model: "ModelSpec") -> int | None:
    """The hidden size that transformers would read off ``model.config``; None if it has none."""
    config = model.hf_config
    text = config.get("text_config")
    for node in (config, text if isinstance(text, Mapping) else {}):
        if _is_size(node.get("hidden_size")):
            return int(node["hidden_size"])
        sizes = node.get("hidden_sizes")
        if isinstance(sizes, list) and sizes and all(_is_size(size) for size in sizes):
            return int(max(sizes))
    return (
        model.arch.hidden
    )  # configs that name it otherwise (n_embd, d_model) map it to hidden_size


def _fill_hidden(
    document: Document, paths: list[str], model: "ModelSpec | None", fills: Fills
) -> None:
    hidden = hidden_size(model) if model is not None else None
    for path in paths:
        origin = f'"auto" ({document.where(path)})'
        if hidden is None:
            fills.by_path[path] = Fill(None, f"{origin}: not resolved")
            fills.findings.append(_no_hidden(document, path, model))
            continue
        formula, words = HIDDEN_KEYS[path]
        text = f"{origin} -> {words.format(hidden)} (Hugging Face Trainer)"
        fills.by_path[path] = Fill(formula(hidden), text)


def _no_hidden(document: Document, path: str, model: "ModelSpec | None") -> Finding:
    if model is None:
        message, severity = '"auto" depends on the model\'s hidden size', Severity.WARNING
        remedy = "give --model"
    else:
        severity = Severity.ERROR
        message = f'"auto" needs a hidden size, and {model.name} has none: ValueError'
        remedy = "write a number"
    return Finding(
        code="auto-unresolved",
        severity=severity,
        key=path,
        line=document.line(path),
        message=message,
        remedy=remedy,
    )


def _fill_precision(document: Document, workload: Workload, fills: Fills) -> None:
    """fp16 and bf16 follow the Trainer's own flags, which only ``--precision`` can tell."""
    open_paths = [path for path in PRECISIONS if document.get(path) == "auto"]
    stated = workload.precision
    if stated is None:
        # A literal true leaves no choice: TrainingArguments cannot have both flags set.
        stated = next((PRECISIONS[p] for p in PRECISIONS if document.get(p) is True), None)
    for path in open_paths:
        origin = f'"auto" ({document.where(path)})'
        if stated is None:
            fills.by_path[path] = Fill(None, f"{origin}: not resolved")
        else:
            text = f"{origin} -> training in {stated} (Hugging Face Trainer)"
            fills.by_path[path] = Fill(PRECISIONS[path] == stated, text)
    if open_paths and stated is None:
        fills.findings.append(_unknown_precision(document, open_paths))
    if workload.precision is not None:
        _check_precision(document, workload, fills)


def _unknown_precision(document: Document, paths: list[str]) -> Finding:
    # A warning, not an error: the run itself knows its flags and does not fail. We do not, so the
    # settings stay None and whoever sizes the job must answer "uncertain".
    return Finding(
        code="auto-unresolved",
        severity=Severity.WARNING,
        key=paths[0],
        line=document.line(paths[0]),
        message=f'"auto" in {" and ".join(paths)} follows the Trainer\'s --bf16 or --fp16, which '
        "are not known here",
        remedy="give --precision bf16, fp16 or fp32",
    )


def _check_precision(document: Document, workload: Workload, fills: Fills) -> None:
    stated = workload.precision
    origin = workload.origins.get("precision", "--precision")
    for path, name in PRECISIONS.items():
        value = document.get(path)
        if isinstance(value, bool) and value != (name == stated):
            fills.findings.append(_precision_mismatch(document, path, origin, stated))
        elif name == stated and not document.has(name):
            text = f"{origin} {stated}: accelerate adds the section (set_mixed_precision)"
            fills.added[path] = Fill(True, text)


def _precision_mismatch(document: Document, path: str, origin: str, stated: str | None) -> Finding:
    return Finding(
        code="auto-mismatch",
        severity=Severity.ERROR,
        key=path,
        line=document.line(path),
        message=f"the config contradicts {origin} {stated}: the Hugging Face Trainer raises "
        "ValueError; the config's value is used here",
        remedy=f'set "{path}" to "auto", or leave {origin} out',
    )


def _auto_stage(document: Document, path: str) -> Finding:
    return Finding(
        code="auto-not-filled",
        severity=Severity.WARNING,
        key=path,
        line=document.line(path),
        message='"auto" becomes 2 under accelerate, but DeepSpeed on its own drops it and trains '
        "at stage 0",
        remedy="write the stage",
    )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
