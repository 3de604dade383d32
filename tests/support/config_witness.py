"""DeepSpeed's own config parser, run in this process: the witness of the config tests."""

import copy
import logging
import os
import types
import warnings
from typing import Any

import pytest

from zero_sizer.config import keys
from zero_sizer.config.document import from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.settings import Settings
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding, Severity

BASE = {"train_micro_batch_size_per_gpu": 1}
# Where DeepSpeedConfig keeps each section after parsing.
HELD_AT = {
    "zero_optimization": "zero_config",
    "fp16": "float16_config",
    "bf16": "bfloat16_config",
    "compile": "compile_config",
    "tensor_parallel": "tensor_parallel_config",
    "hybrid_engine": "hybrid_engine",
    "tensorboard": "monitor_config.tensorboard",
    "wandb": "monitor_config.wandb",
    "csv_monitor": "monitor_config.csv_monitor",
    "comet": "monitor_config.comet",
    "comms_logger": "comms_config.comms_logger",
    "weight_quantization": "weight_quantization_config",
    "timers.throughput": "timers_config",
    "activation_checkpointing": "activation_checkpointing_config",
    "flops_profiler": "flops_profiler_config",
    "autotuning": "autotuning_config",
    "aio": "aio_config",
    "pipeline": "pipeline",
    "checkpoint.writer": "checkpoint_config.writer",
}


class Witness:
    """Runs DeepSpeedConfig and reports what it made of a config."""

    def __init__(self, config_module: Any) -> None:
        self._module = config_module
        self.world_size = 1

    def parse(self, config: dict[str, Any]) -> Any:
        """The DeepSpeedConfig of a copy of ``config``."""
        return self._module.DeepSpeedConfig(copy.deepcopy(config))

    def judge(self, config: dict[str, Any]) -> tuple[Any, str]:
        """The DeepSpeedConfig and "", or None and the name of the exception."""
        try:
            return self.parse(config), ""
        except Exception as error:
            return None, type(error).__name__

    def refusal(self, config: dict[str, Any]) -> str:
        """Name of the exception; "" if the config is accepted."""
        return self.judge(config)[1]

    def unreadable(self, text: str) -> bool:
        """Whether DeepSpeed's own reader fails on the text of a file."""
        hook = self._module.dict_raise_error_on_duplicate_keys
        try:
            self._module.hjson.loads(text, object_pairs_hook=hook)
        except ValueError:  # HjsonDecodeError is one
            return True
        return False

    def held(self, parsed: Any, path: str) -> Any:
        """Value a DeepSpeedConfig holds for ``path``; LookupError where it keeps none."""
        section, _, name = path.rpartition(".")
        place, inner = section, ""
        while place and place not in HELD_AT:
            place, _, last = place.rpartition(".")
            inner = f"{last}.{inner}" if inner else last
        if not place:
            raise LookupError(path)
        row = keys.table().keys[path]
        node = parsed
        steps = [*HELD_AT[place].split("."), *(_field_names(place, inner)), row.field or name]
        for step in steps:
            node = node[step] if isinstance(node, dict) else getattr(node, step)
        return node


def _field_names(section: str, inner: str) -> list[str]:
    names = []
    for part in inner.split(".") if inner else []:
        section = f"{section}.{part}"
        names.append(keys.table().sections[section].field or part)
    return names


def load_witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    """Import DeepSpeed quietly, as a single process that sees a CUDA device (for aio.use_gds)."""
    monkeypatch.setenv("DS_ACCELERATOR", os.environ.get("DS_ACCELERATOR", "cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("deepspeed")
        from deepspeed.runtime import config
        from deepspeed.runtime.swap_tensor import aio_config
    logging.getLogger("DeepSpeed").setLevel(logging.CRITICAL)
    monkeypatch.setattr(config.dist, "get_rank", lambda *_: 0)
    witness = Witness(config)
    monkeypatch.setattr(config.dist, "get_world_size", lambda *_: witness.world_size)
    cuda = types.SimpleNamespace(device_name=lambda: "cuda")
    monkeypatch.setattr(aio_config, "get_accelerator", lambda: cuda)
    return witness


def nested(path: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``a.b``."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """``left`` with the objects of ``right`` merged in."""
    result = copy.deepcopy(left)
    for key, value in right.items():
        inner = result.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        result[key] = merged(inner, value) if both else copy.deepcopy(value)
    return result


def resolved(config: dict[str, Any], world_size: int = 1) -> tuple[Settings, list[Finding]]:
    """Our answer for a plain mapping and no flags."""
    return resolve(from_mapping(config), Workload(), world_size=world_size, model=None)


def errors(findings: list[Finding]) -> list[Finding]:
    """The error-level ones."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]
