"""Models of the Hugging Face hub by their ids: bundled, by a public config, or of a known shape."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.models.sources.bundled import bundled_names, load_bundled, read_bundled
from zero_sizer.models.spec import ModelSpec

_DATA = Path(__file__).parents[1] / "data" / "hub.json"
_OF_TUNING = frozenset(
    {"instruct", "chat", "it", "hf", "base", "meta", "deduped", "pt", "ms", "instruct-2507", "2507"}
)
"""Words in a model's name that change no shape; ``int4``, ``awq`` or ``32k`` are not among them."""


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(_DATA.read_text(encoding="utf-8"))
    return table


@cache
def public_names() -> tuple[str, ...]:
    """Names of the models of which a public config is kept, sorted."""
    return tuple(sorted(_table()["configs"]))


@cache
def known_names() -> tuple[str, ...]:
    """Every name that needs no owner: bundled models and public configs, sorted."""
    return tuple(sorted({*bundled_names(), *public_names()}))


def public_config(name: str) -> Mapping[str, Any]:
    """``source``, ``params`` and ``config`` of public config ``name``."""
    row: Mapping[str, Any] = _table()["configs"][name]
    return row


def find(reference: str) -> ModelSpec | None:
    """The model that a name or hub id means, tuned ones and copies included; None: not known."""
    asked = reference.lower()
    if asked in known_names():
        return load_known(asked)
    name = _ids().get(asked)
    if name is not None:
        return load_known(name)
    name = same_shape(asked)
    return None if name is None else _of_shape(name, reference)


def same_shape(asked: str) -> str | None:
    """The known name whose shape ``asked`` (lower case) has: tuning and copying change none.

    Of a hub id the owner is the same, or one who copies, and the name but for words such as
    ``instruct``; a quantized or lengthened model has words that are kept, and is another one.
    """
    table = _table()
    name = _equals().get(asked)
    if name is not None:
        return name
    owner, slash, base = asked.rpartition("/")
    if slash:
        own = _untuned_ids().get(f"{owner}/{untuned(base)}")
        changed = table["copies"].get(owner)
        if own is not None or changed is None or base.startswith(tuple(changed)):
            return own
    return _untuned_names().get(untuned(base))


def untuned(name: str) -> str:
    """``name`` without the words of tuning."""
    return "-".join(word for word in name.split("-") if word not in _OF_TUNING)


def load_known(name: str) -> ModelSpec:
    """The model of a known name."""
    if name in bundled_names():
        return load_bundled(name)
    from zero_sizer.models.sources.hf_config import laid_out

    row = public_config(name)
    where = f"public config {row['source']}"
    spec = laid_out(row["config"], name=name, where=where)
    if spec is None:
        raise UnsupportedError(f"the family of {name} is not laid out here", where=where)
    return replace(spec, has_own_code=bool(row.get("own_code")))


def _of_shape(name: str, asked: str) -> ModelSpec:
    spec = load_known(name)
    return replace(spec, origin=f"{spec.origin}, whose shape {asked} has")


@cache
def _ids() -> dict[str, str]:
    """Lower-case hub id -> known name (the shortest, where several share one)."""
    found = {row["source"].lower(): name for name, row in _table()["configs"].items()}
    for name in sorted(bundled_names(), key=len, reverse=True):
        found[read_bundled(name)["source"].split()[0].lower()] = name
    return found


@cache
def _equals() -> dict[str, str]:
    """Lower-case hub id -> known name of another model with its shape."""
    same = _table()["same_shape"].items()
    return {hub_id.lower(): name for name, hub_ids in same for hub_id in hub_ids}


@cache
def _untuned_ids() -> dict[str, str]:
    return dict(_without_tuning({**_equals(), **_ids()}))


def _without_tuning(ids: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for hub_id, name in ids.items():
        owner, slash, base = hub_id.rpartition("/")
        yield f"{owner}{slash}{untuned(base)}", name


@cache
def _untuned_names() -> dict[str, str]:
    """Names without their owners, what is bundled last so that it counts."""
    by_id = {hub_id.rpartition("/")[2]: name for hub_id, name in _untuned_ids().items()}
    return {**by_id, **{untuned(name): name for name in known_names()}}
