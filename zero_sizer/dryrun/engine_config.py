"""The config a dry run hands to ``deepspeed.initialize``: "auto" filled, no side effects."""

import copy
from collections.abc import Mapping
from typing import Any

from zero_sizer.config import auto
from zero_sizer.config.batch import ACCUM, MICRO, TRAIN
from zero_sizer.config.document import Document
from zero_sizer.config.settings import Settings
from zero_sizer.config.workload import Workload
from zero_sizer.models.spec import ModelSpec

# They write files or call services, and hold no tensors.
_LEFT_OUT = ("tensorboard", "wandb", "csv_monitor", "comet", "autotuning", "flops_profiler")


def engine_config(
    document: Document,
    settings: Settings,
    workload: Workload,
    model: ModelSpec,
    *,
    micro_batch: int,
    nvme_path: str | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The config as DeepSpeed would be given it, for any number of ranks.

    Args:
        document: as written.
        settings: the resolved settings, at the job's own world size.
        workload: the flags.
        model: its hidden size fills some "auto" values.
        micro_batch: samples per rank and micro step.
        nvme_path: where swap files go instead of the config's own folder.

    Returns:
        The mapping, and one sentence for each change that is not the filling of an "auto".
    """
    notes: list[str] = []
    config: dict[str, Any] = copy.deepcopy(dict(document.values))
    fills = auto.fill(document, workload, model)
    for path, value in document.leaves():
        if value == "auto":
            fill = fills.by_path.get(path)
            _put(config, path, fill.value if fill is not None else None)
    _fill_batch(config, settings, micro_batch, notes)
    for name in _LEFT_OUT:
        if config.pop(name, None) is not None:
            notes.append(f"{name} left out: it holds no tensors")
    _drop_unfilled_scheduler(config, document, notes)
    if nvme_path is not None:
        _move_swap_files(config, nvme_path, notes)
    return config, notes


def _put(config: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path, or remove it for None (DeepSpeed then takes its default)."""
    *sections, name = path.split(".")
    node: Any = config
    for section in sections:
        node = node[section]
    if value is None:
        node.pop(name, None)
    else:
        node[name] = value


def _fill_batch(
    config: dict[str, Any], settings: Settings, micro_batch: int, notes: list[str]
) -> None:
    config[MICRO] = micro_batch
    config[ACCUM] = int(settings[ACCUM] or 1)
    if config.pop(TRAIN, None) is not None:
        notes.append(f"{TRAIN} follows from the ranks of the run: {MICRO} and {ACCUM} are kept")


def _drop_unfilled_scheduler(config: dict[str, Any], document: Document, notes: list[str]) -> None:
    if any(p.startswith("scheduler.") and v == "auto" for p, v in document.leaves()):
        config.pop("scheduler", None)
        notes.append('scheduler left out: its "auto" values need a training length')


def _move_swap_files(config: dict[str, Any], folder: str, notes: list[str]) -> None:
    zero = config.get("zero_optimization")
    for name in ("offload_optimizer", "offload_param"):
        section = zero.get(name) if isinstance(zero, Mapping) else None
        if isinstance(section, dict) and section.get("device") == "nvme":
            notes.append(f"{name}: swap files go to a temporary folder")
            section["nvme_path"] = folder
