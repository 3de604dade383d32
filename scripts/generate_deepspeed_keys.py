"""Write zero_sizer/config/data/deepspeed_keys.json from DeepSpeed's own config classes.

Nothing is copied by hand. Sections parsed by pydantic are read off the models; sections parsed by
hand-written code are found by running ``DeepSpeedConfig`` on dicts that note which keys are asked
for, and by trying a value of every JSON kind in each of those keys.

Usage: python scripts/generate_deepspeed_keys.py [--check]
"""

import copy
import inspect
import json
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import data_file
import deepspeed
import torch
from config_models import join, model_rows, plain
from config_recorder import ABSENT, PROBE, Log, Recorder
from deepspeed.runtime import config as ds_config
from deepspeed.runtime import constants as ds_constants
from deepspeed.runtime.config_utils import DeepSpeedConfigModel
from deepspeed.runtime.model_checkpointing import constants as checkpoint_constants
from deepspeed.runtime.swap_tensor import aio_config

TARGET = Path(__file__).parents[1] / "zero_sizer" / "config" / "data" / "deepspeed_keys.json"
BASE = {"train_micro_batch_size_per_gpu": 1}
BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
# Companions that make the parsers read further keys of a section.
COMPANIONS: tuple[dict[str, Any], ...] = ({}, {"type": "Adam"}, {"enabled": True})
# One value of every kind; config/values.py (kind_of) sorts the user's values the same way.
KINDS: dict[str, Any] = {
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "positive": 3,
    "negative": -3,
    "float": 1.5,
    "float_zero": 0.0,
    "float_one": 1.0,
    "float_negative": -1.5,
    "inf": float("inf"),
    "nan": float("nan"),
    "string": "zzz",
    "empty_string": "",
    "digits": "3",
    "auto": "auto",
    "null": None,
    "list": [3],
    "strings": ["zzz"],
    "empty_list": [],
    "object": {"zzz": 3},
    "empty_object": {},
}
# Read by deepspeed.initialize (deepspeed/__init__.py), before DeepSpeedConfig sees the dict.
READ_BY_INITIALIZE = ("data_parallel_size",)
# Given to the optimizer's or scheduler's constructor as they are (runtime/engine.py).
HANDED_ON = ("optimizer.params", "scheduler.params")


def nested(path: str, value: Any, companions: dict[str, Any], log: Log) -> Recorder:
    """A recording config that holds ``value`` at ``path``, with companions beside it."""
    parts = path.split(".")
    node = value
    for depth in range(len(parts) - 1, -1, -1):
        here = ".".join(parts[:depth])
        beside = dict(companions) if depth else dict(BASE)
        node = Recorder({**beside, parts[depth]: node}, here, log)
    return node  # type: ignore[no-any-return]


def parse(config: Any) -> str:
    """Run DeepSpeed's parser; '' or the name of the exception it raised."""
    try:
        ds_config.DeepSpeedConfig(config)
    except Exception as error:
        return type(error).__name__
    return ""


def watch_models(log: Log, path: str) -> Any:
    """Replacement of the models' ``__init__`` that notes the class given the probe key."""
    original = DeepSpeedConfigModel.__init__

    def init(self: Any, strict: bool = False, **data: Any) -> None:
        if data.pop(PROBE, None) is not None:
            log.models[path] = type(self)
        original(self, strict=strict, **data)

    return original, init


def probe_section(path: str, demanded: dict[str, Any]) -> Log:
    """Everything the parser asks of the section at ``path``, given keys that it may demand."""
    log = Log()
    original, init = watch_models(log, path)
    DeepSpeedConfigModel.__init__ = init
    try:
        for companions in COMPANIONS:
            for inner in COMPANIONS:
                section = Recorder({PROBE: 1, **inner, **demanded}, path, log)
                parse(nested(path, section, companions, log) if path else Recorder(BASE, "", log))
        if not path:  # the deprecated boolean form reads one more key
            parse(nested("zero_optimization", True, {}, log))
    finally:
        DeepSpeedConfigModel.__init__ = original
    return log


def discover() -> tuple[dict[str, dict[str, Any]], dict[str, Any], set[str]]:
    """Sections (path -> keys read), models (path -> class), open sections."""
    removed = removed_keys()
    sections: dict[str, dict[str, Any]] = {}
    models: dict[str, type[DeepSpeedConfigModel]] = {}
    opened: set[str] = set()
    queue = [""]
    while queue:
        path = queue.pop(0)
        log = probe_section(path, {})
        if path in log.models:
            models[path] = log.models[path]
            continue
        reads = {
            key: default
            for key, default in log.reads.get(path, {}).items()
            if join(path, key) not in removed
        }
        if path and not reads and path not in log.open:
            continue
        sections[path] = reads
        demanded = {key: {} for key, default in reads.items() if default is ABSENT}
        if path in log.open | probe_section(path, demanded).open:
            opened.add(path)
        queue += [join(path, key) for key in reads]
    return sections, models, opened


def removed_keys() -> dict[str, str]:
    """Removed keys -> the message of the DeepSpeedConfigError."""
    top = ds_config._REMOVED_TOP_LEVEL_CONFIG_KEYS
    zero = ds_config._REMOVED_ZERO_CONFIG_KEYS
    return {**top, **{f"zero_optimization.{key}": text for key, text in zero.items()}}


def spellings() -> list[str]:
    """Strings that some key may accept: every string constant near the parser."""
    found = {"true", "false"}
    for module in (ds_constants, checkpoint_constants, ds_config):
        found |= {v for v in vars(module).values() if isinstance(v, str) and len(v) < 20}
    for member in (*ds_config.DtypeEnum, *ds_constants.ValidationMode.__dict__.values()):
        values = getattr(member, "_all_values", (member,))
        found |= {value for value in values if isinstance(value, str) and len(value) < 20}
    lists = (v for v in vars(checkpoint_constants).values() if isinstance(v, list))
    found |= {item for values in lists for item in values}
    return sorted(found)


def companions_of(path: str) -> dict[str, Any]:
    """What must stand beside ``path`` for the parser to look at it."""
    return {"type": "Adam"} if path.startswith(("optimizer.", "scheduler.")) else {}


def refusals(path: str, siblings: dict[str, Any] | None = None) -> dict[str, str]:
    """Kind of value -> the exception DeepSpeed's parser raises for it.

    ``siblings`` are keys that the parser may demand once this one is set: a kind counts as refused
    only if it is refused with them too.
    """
    beside = companions_of(path)
    company = {**(siblings or {}), **beside}
    company.pop(path.rpartition(".")[2], None)
    fair = not parse(unrecorded(path, copy.deepcopy(KINDS["object"]), company)) or not parse(
        unrecorded(path, False, company)
    )
    outcomes = {}
    for kind, value in KINDS.items():
        error = parse(unrecorded(path, copy.deepcopy(value), beside))
        if error and fair and company != beside:
            error = parse(unrecorded(path, copy.deepcopy(value), company))
        if error:
            outcomes[kind] = error
    return outcomes


def unrecorded(path: str, value: Any, companions: dict[str, Any]) -> dict[str, Any]:
    """A plain config with ``value`` at ``path``."""
    for depth, part in reversed(list(enumerate(path.split(".")))):
        value = {**(companions if depth else BASE), part: value}
    return value  # type: ignore[no-any-return]


def dict_row(path: str, default: Any, siblings: dict[str, Any]) -> dict[str, Any]:
    """One key of a section parsed by hand-written code."""
    if default is ABSENT:
        default = held_default(path)
    row: dict[str, Any] = {"type": "any", "default": plain(default)}
    if path in BATCH_KEYS:
        return row
    refused = refusals(path, siblings)
    if refused:
        row["refuses"] = refused
    if "string" in refused:
        beside = companions_of(path)
        accepted = [text for text in spellings() if not parse(unrecorded(path, text, beside))]
        row |= {"allowed": accepted} if accepted else {}
    return row


def held_default(path: str) -> Any:
    """Default of a key that is only tested for: where a probe ends up when nobody gives one."""
    probe = KINDS["string"]
    try:
        held = vars(ds_config.DeepSpeedConfig(unrecorded(path, probe, companions_of(path))))
    except Exception:
        return None
    for name, value in held.items():
        if value == probe:
            return getattr(ds_config.DeepSpeedConfig(dict(BASE)), name)
    return None


def dict_section(path: str, opened: set[str]) -> dict[str, Any]:
    """One section parsed by hand-written code."""
    return {"parser": "dict", "unknown": "kept" if path in opened else "ignored"}


def signatures(classes: list[Any]) -> dict[str, dict[str, Any]]:
    """Class name -> the constructor's keyword parameters with their defaults."""
    skip = ("self", "params", "model_params", "optimizer")
    table: dict[str, dict[str, Any]] = {}
    for cls in classes:
        parameters = inspect.signature(cls).parameters
        table[f"{cls.__module__}.{cls.__name__}"] = {
            name: None if item.default is inspect.Parameter.empty else plain(item.default)
            for name, item in parameters.items()
            if name not in skip and item.kind.name != "VAR_KEYWORD"
        }
    return table


def optimizer_classes() -> list[Any]:
    """Every optimizer class that DeepSpeedEngine._configure_basic_optimizer may build."""
    from deepspeed.ops.adagrad import DeepSpeedCPUAdagrad
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam
    from deepspeed.ops.lamb import FusedLamb
    from deepspeed.ops.lion import DeepSpeedCPULion, FusedLion

    ours = [
        FusedAdam,
        DeepSpeedCPUAdam,
        DeepSpeedCPUAdagrad,
        FusedLamb,
        FusedLion,
        DeepSpeedCPULion,
    ]
    optim = torch.optim
    return [*ours, optim.Adam, optim.AdamW, optim.Adagrad, optim.SGD]


def scheduler_classes() -> list[Any]:
    """Every scheduler named in the config by its class."""
    from deepspeed.runtime import lr_schedules

    return [getattr(lr_schedules, name) for name in lr_schedules.VALID_LR_SCHEDULES]


def single_process_with_gpu() -> None:
    """Make the parser see world size 1 and a CUDA device (aio.use_gds asserts one)."""
    ds_config.dist.get_rank = lambda: 0
    ds_config.dist.get_world_size = lambda group=None: 1
    cuda = types.SimpleNamespace(device_name=lambda: "cuda")
    aio_config.get_accelerator = lambda: cuda


def dict_rows(sections: dict[str, dict[str, Any]], models: dict[str, Any]) -> dict[str, Any]:
    """Keys of all sections parsed by hand-written code."""
    rows = {}
    for path, reads in sections.items():
        demanded = {key: 1 for key, default in reads.items() if default is ABSENT} if path else {}
        for key, default in reads.items():
            full = join(path, key)
            if full not in sections and full not in models and full not in HANDED_ON:
                rows[full] = dict_row(full, default, demanded)
    rows |= {key: {"type": "any", "default": None} for key in READ_BY_INITIALIZE}
    for key, default in ds_config.get_pipeline_config({}).items():
        rows[f"pipeline.{key}"] = {"type": "any", "default": plain(default)}
    return rows


def add_models(models: dict[str, type[DeepSpeedConfigModel]], table: dict[str, Any]) -> None:
    """Sections parsed by pydantic; a second name of the same model is an alias."""
    seen: dict[str, str] = {}
    for path, model in models.items():
        if model.__name__ in seen:
            table["sections"][path] = {"alias_of": seen[model.__name__]}
        else:
            seen[model.__name__] = path
            model_rows(path, model, table)


def build() -> dict[str, Any]:
    """The whole table."""
    logging.disable(logging.CRITICAL)
    single_process_with_gpu()
    sections, models, opened = discover()
    table: dict[str, Any] = {
        "deepspeed": deepspeed.__version__,
        "sections": {path: dict_section(path, opened) for path in sections},
        "keys": dict_rows(sections, models),
    }
    add_models(models, table)
    table["sections"] |= {path: {"parser": "dict", "unknown": "kept"} for path in HANDED_ON}
    for path, section in table["sections"].items():
        kinds = refusals(path) if path else {}
        kinds = {kind: error for kind, error in kinds.items() if "object" not in kind}
        section |= {"refuses": kinds} if kinds else {}
    table["removed"] = removed_keys()
    table["deepspeed_optimizers"] = list(ds_config.DEEPSPEED_OPTIMIZERS)
    table["optimizer_classes"] = signatures(optimizer_classes())
    table["scheduler_classes"] = signatures(scheduler_classes())
    for part in ("sections", "keys"):
        table[part] = dict(sorted(table[part].items()))
    return table


def render() -> str:
    """The data file's text."""
    return json.dumps(build(), indent=1, sort_keys=False) + "\n"


if __name__ == "__main__":
    sys.exit(data_file.main(__doc__.splitlines()[0], TARGET, render))  # type: ignore[union-attr]
