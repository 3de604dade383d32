"""Widgets of the site's form, made of the table of what users state."""

from collections.abc import Iterator

from zero_sizer import models
from zero_sizer.config.workload import INFERENCE
from zero_sizer.hardware.catalog import all_gpus
from zero_sizer.hardware.instances import all_instances
from zero_sizer.job.fields import GOAL, OPTIONS, TRAINING_RUN, Field
from zero_sizer.job.values import OneOf, Whole, checkpointing, yes_or_no
from zero_sizer.units import format_gib
from zero_sizer.util.records import dataclass

_OF_FILES = (
    "hostfile",
    "cluster_profile",
    "rates",
    "allow_code",
)  # a browser has neither such files nor code
_FIRST = {  # what most questions need, in the order in which people think of it
    "model": "Model",
    "gpu": "GPU",
    "gpus_per_node": "GPUs per node",
    "nodes": "Nodes",
    "host_memory": "Memory of a node's host",
    "nvme": "NVMe of a node",
    "seq_len": "Sequence length in tokens",
    "micro_batch": "Micro batch of a GPU",
    "checkpointing": "Activation checkpointing",
}
_HELP = {  # where the command line's speaks of what a browser has not, or says the label again
    "model": "a bundled name such as llama-3-8b, or numbers: params=7e9,layers=32,hidden=4096",
    "adapter": "r=16,targets=all-linear",
    "gpu": "",
    "host_memory": "such as 512GiB",
    "nvme": "such as 7TB",
}
_GROUPS = {
    "": "Model: adapters, quantization, frozen parts",
    "cluster": "Cluster",
    "workload": "Workload",
    INFERENCE: "Inference",
    TRAINING_RUN: "Training run: time, energy and price",
    GOAL: "Goal of the training run (for the best plan)",
}
_ACRONYMS = {"gpu": "GPU", "lora": "LoRA", "nvme": "NVMe", "deepspeed": "DeepSpeed"}


@dataclass(frozen=True, kw_only=True)
class Widget:
    """One labelled widget.

    Attributes:
        name: of the value, as in the table.
        flag: of the command line.
        label: what it is called.
        help: one clause.
        kind: ``number``, ``text``, ``select`` or ``switch`` (stated on, stated off, not stated).
        lowest: of a number.
        choices: (value, words) of a select.
        suggestions: of a text.
        only: the command that takes it; empty: both do.
    """

    name: str
    flag: str
    label: str
    help: str = ""
    kind: str = "text"
    lowest: int = 1
    choices: tuple[tuple[str, str], ...] = ()
    suggestions: tuple[str, ...] = ()
    only: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Widgets that belong together, under a title."""

    title: str
    widgets: tuple[Widget, ...]


def first() -> dict[str, Widget]:
    """Widgets that are always shown, by name."""
    by_name = {option.name: option for option in OPTIONS}
    return {name: _widget(by_name[name], label) for name, label in _FIRST.items()}


def others() -> Iterator[Group]:
    """All other widgets, group by group."""
    for group, title in _GROUPS.items():
        widgets = [
            _widget(option, _label(option.name))
            for option in OPTIONS
            if option.group == group and option.name not in (*_FIRST, *_OF_FILES)
        ]
        if group == "workload":
            about = "on, and: every-K or first-K blocks; offload; reentrant or deepspeed"
            how = "--checkpointing-how"
            widgets.append(
                Widget(name="checkpointing_how", flag=how, label="Checkpointing, how", help=about)
            )
        yield Group(title=title, widgets=tuple(widgets))


def _widget(option: Field, label: str) -> Widget:
    check = option.check
    choices: tuple[tuple[str, str], ...] = ()
    kind = "text"
    if option.name == "gpu":
        kind, choices = "select", tuple(_gpus())
    elif isinstance(check, OneOf):
        kind, choices = "select", tuple((word, word) for word in check.choices)
    elif isinstance(check, Whole):
        kind = "number"
    elif check in (yes_or_no, checkpointing):
        kind = "switch"
    return Widget(
        name=option.name,
        flag=option.flag,
        label=label,
        help=_HELP.get(option.name, option.help),
        kind=kind,
        lowest=check.lowest if isinstance(check, Whole) else 1,
        choices=choices,
        suggestions=_suggestions(option.name),
        only="choose" if option.group == GOAL else "",
    )


def _suggestions(name: str) -> tuple[str, ...]:
    if name == "model":
        return models.bundled_names()
    return tuple(row.name for row in all_instances()) if name == "instance" else ()


def _gpus() -> Iterator[tuple[str, str]]:
    for gpu in all_gpus():
        yield gpu.name, f"{gpu.name} ({format_gib(gpu.visible_bytes)})"


def _label(name: str) -> str:
    words = [_ACRONYMS.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]
