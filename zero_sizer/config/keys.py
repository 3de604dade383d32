"""Every config key that DeepSpeed 0.19.8 knows, read from the generated table.

``data/deepspeed_keys.json`` is written by ``scripts/generate_deepspeed_keys.py`` from DeepSpeed's
own classes; nothing in it is typed by hand.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import field
from functools import cache, lru_cache
from typing import Any

from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import nearest

TABLE = os.path.join(os.path.dirname(__file__), "data", "deepspeed_keys.json")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key.

    Attributes:
        path: canonical dotted path, spelled as in JSON (``zero_optimization.stage3_...``).
        type: ``bool``, ``int``, ``float``, ``str``, ``path``, ``list``, ``dict``, ``dtype``,
            ``str|int``, or ``any`` where DeepSpeed does not look at the type.
        default: value when the key is left out.
        nullable: whether null is accepted.
        allowed: the accepted values, where there are only a few.
        items: type of list items; empty if any.
        bounds: ``gt``, ``ge``, ``lt``, ``le`` -> limit.
        refuses: kind of value (see ``values.kind_of``) -> exception DeepSpeed raises; only for keys
            of type ``any``.
        field: DeepSpeed's own name where JSON knows the key by an alias; both are accepted.
        replacement: for a deprecated key, the one to use instead.
        deprecated: whether DeepSpeed warns about it.
    """

    path: str
    type: str
    default: Any
    nullable: bool = False
    allowed: tuple[Any, ...] = ()
    items: str = ""
    bounds: Mapping[str, float] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    field: str = ""
    replacement: str = ""
    deprecated: bool = False


@dataclass(frozen=True, kw_only=True)
class ConfigSection:
    """One object of keys.

    Attributes:
        path: dotted path; empty for the top level.
        parser: ``pydantic`` or ``dict``.
        unknown: what DeepSpeed does with an unknown key: ``forbidden`` (ValidationError),
            ``ignored``, or ``kept`` (handed on to other code).
        refuses: kind of value -> exception, when something else than an object stands there.
        alias_of: the section this is an old name of.
        field: DeepSpeed's own name where JSON knows the section by an alias.
    """

    path: str
    parser: str = "dict"
    unknown: str = "ignored"
    refuses: Mapping[str, str] = field(default_factory=dict)
    alias_of: str = ""
    field: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The generated table.

    Attributes:
        version: DeepSpeed version it was generated from.
        keys: canonical path -> key.
        sections: path -> section; "" is the top level.
        aliases: path by DeepSpeed's field name -> canonical path (keys and sections).
        removed: path -> message of the DeepSpeedConfigError.
        optimizers: optimizer names that DeepSpeed builds itself, in lower case.
        optimizer_classes: class -> constructor parameter -> default.
        scheduler_classes: class -> constructor parameter -> default.
    """

    version: str
    keys: Mapping[str, Key]
    sections: Mapping[str, ConfigSection]
    aliases: Mapping[str, str]
    removed: Mapping[str, str]
    optimizers: tuple[str, ...]
    optimizer_classes: Mapping[str, Mapping[str, Any]]
    scheduler_classes: Mapping[str, Mapping[str, Any]]


# optimizer.params.max_grad_norm is read only to be refused: "please switch to gradient_clipping".
_TOLD_BY_DEEPSPEED = {"max_grad_norm": "gradient_clipping"}


@cache
def table() -> Table:
    """The table, read once."""
    with open(TABLE, encoding="utf-8") as file:
        raw = json.load(file)
    keys = {path: _key(path, row) for path, row in raw["keys"].items()}
    sections = {path: _section(path, row) for path, row in raw["sections"].items()}
    named: list[Key | ConfigSection] = [*keys.values(), *sections.values()]
    return Table(
        version=raw["deepspeed"],
        keys=keys,
        sections=sections,
        aliases={join(parent(row.path), row.field): row.path for row in named if row.field},
        removed=raw["removed"],
        optimizers=tuple(raw["deepspeed_optimizers"]),
        optimizer_classes=raw["optimizer_classes"],
        scheduler_classes=raw["scheduler_classes"],
    )


def _key(path: str, row: Mapping[str, Any]) -> Key:
    bounds = {name: row[name] for name in ("gt", "ge", "lt", "le") if name in row}
    plain = {
        name: row[name]
        for name in ("type", "default", "nullable", "items", "refuses", "field", "replacement")
        if name in row
    }
    return Key(
        path=path,
        allowed=tuple(row.get("allowed", ())),
        bounds=bounds,
        deprecated=row.get("deprecated", False),
        **plain,
    )


def _section(path: str, row: Mapping[str, Any]) -> ConfigSection:
    names = ("parser", "unknown", "refuses", "alias_of", "field")
    return ConfigSection(path=path, **{name: row[name] for name in names if name in row})


def join(section: str, name: str) -> str:
    """Dotted path of ``name`` in ``section``."""
    return f"{section}.{name}" if section else name


def parent(path: str) -> str:
    """ConfigSection that a path stands in; "" is the top level."""
    return path.rpartition(".")[0]


def members(section: str) -> list[str]:
    """Names that DeepSpeed knows directly in ``section``: keys and sections, aliases included."""
    known = table()
    paths = (*known.keys, *known.sections, *known.aliases)
    return sorted({path.rpartition(".")[2] for path in paths if path and parent(path) == section})


@lru_cache(maxsize=1024)
def did_you_mean(path: str) -> str:
    """Known key that the unknown ``path`` most resembles, or "".

    Looks at spelling among the keys of the same section first; then for the same name in another
    section, because ``stage`` at top level and ``gradient_clipping`` inside ``optimizer`` are
    misplaced, not misspelt.
    """
    if path in table().keys:  # a dotted path written as one key
        return path
    section, _, name = path.rpartition(".")
    lowered = {item.lower().replace("-", "_"): item for item in members(section)}
    near = nearest(name.lower().replace("-", "_"), lowered, cutoff=0.84)
    if near:
        return join(section, lowered[near[0]])
    if name in _TOLD_BY_DEEPSPEED:
        return _TOLD_BY_DEEPSPEED[name]
    elsewhere = [
        known
        for known in (*table().keys, *table().sections)
        if known.rpartition(".")[2] == name and not known.startswith("autotuning.")
    ]
    return min(elsewhere, key=_nearness(section)) if elsewhere else ""


def _nearness(section: str) -> Any:
    """Sort key: the top level and zero_optimization are where keys mostly belong."""

    def rank(path: str) -> tuple[bool, bool, int, str]:
        return (not path.startswith(f"{section}."), "zero_opt" not in path, path.count("."), path)

    return rank
