"""The GPU table: ``data/gpus.json`` read once, and names as people type them."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.units import GIB, MIB
from zero_sizer.util.spelling import nearest

_TABLE = Path(__file__).parent / "data" / "gpus.json"
_NOISE = re.compile(r"nvidia|geforce|tesla|amd|instinct|radeon|[\s_\-/()]+")
_MIG = re.compile(r"\bmig\b", re.IGNORECASE)
_SLICE = re.compile(r"\b([12347])g\.(\d{1,3})gb\b", re.IGNORECASE)
_SLICES = {1: 8, 2: 4, 3: 2, 4: 2, 7: 1}  # of a card with so many sevenths of its processors
_CLOSE = 0.15
_VARIANT = re.compile("ti|super|ada|d")  # behind a number: another card
_QUADRO = "quadro"  # tells an RTX 6000 of 2018 from its namesakes; elsewhere it says nothing
_HINT = "`zero-sizer gpus` lists them; for any other GPU state its memory: --gpu-memory 24GiB"


def find(name: str) -> Gpu:
    """The GPU that ``name`` means, however it is spelt (``H100``, ``a100_80gb``, ``rtx3090``).

    Raises:
        InputError: unknown, a family that comes with several memory sizes, a slice of a GPU, or
            an accelerator that the table cannot hold.
    """
    wanted = _squeeze(name)
    spellings = _by_spelling()
    exact = spellings.get(wanted) or spellings.get(wanted.removeprefix(_QUADRO))
    if exact is not None:
        return exact
    if _MIG.search(name):
        raise InputError(f"{name[:80]!r} is a slice of a GPU", remedy=_whole_card(name))
    family = _family(wanted)
    if len(family) == 1:
        return family[0]
    if family:
        choices = ", ".join(gpu.name for gpu in family)
        raise InputError(f"{name!r} could be any of {choices}", remedy="write which one")
    _refuse_elsewhere(wanted)
    raise InputError(f"no GPU {name[:80]!r} in the table{_near(wanted)}", remedy=_HINT)


def _whole_card(name: str) -> str:
    """How to state a slice: by its card, as far as the name tells it, and by its memory."""
    card, slice_ = _squeeze(_MIG.split(name)[0]), _SLICE.search(name)
    exact = _by_spelling().get(card)
    named = _family(card) if exact is None else [exact]
    memory = "--gpu-memory SIZE, as PyTorch shows it"
    if slice_ is not None:
        share, size = _SLICES[int(slice_.group(1))], int(slice_.group(2))
        memory = f"--gpu-memory {size}GiB, or what PyTorch shows of it"
        whole = [g for g in named if abs(share * size * GIB / g.marketing_bytes - 1) < _CLOSE]
        named = whole or named
    which = " or ".join(gpu.name for gpu in named) or "CARD"
    return f"name the whole card and the slice's memory: --gpu {which} {memory}"


def _family(wanted: str) -> list[Gpu]:
    """GPUs whose name begins so, else those with an alias that does."""
    if len(wanted) < 2:
        return []
    named = {gpu.name: gpu.name for gpu in all_gpus() if _begins(gpu.name, wanted)}
    if not named:
        named = {gpu.name: text for text, gpu in _aliases() if _begins(text, wanted)}
    rests = [_rest(text, wanted) or "" for text in named.values()]
    if wanted[-1].isdigit() and all(map(_VARIANT.match, rests)):  # a GTX 1080 is no GTX 1080 Ti
        return []
    return [gpu for gpu in all_gpus() if gpu.name in named]


def _begins(text: str, wanted: str) -> bool:
    """True if a name begins so, and not with a longer number: a P4 is no P40."""
    rest = _rest(text, wanted)
    if rest is None or not (wanted[-1].isdigit() and rest[:1].isdigit()):
        return rest is not None
    ends = [at for at in range(len(text)) if _squeeze(text[at:]) == rest]
    return not text[max(ends) - 1].isdigit()


def _rest(text: str, wanted: str) -> str | None:
    """Squeezed text behind what is wanted; None where it begins otherwise."""
    full = _squeeze(text).removeprefix(_QUADRO)
    return full[len(wanted) :] if full.startswith(wanted) else None


def _refuse_elsewhere(wanted: str) -> None:
    """Stops at an accelerator on which DeepSpeed runs and that the table does not hold.

    Raises:
        InputError: it is one, with the flags that still size a job on it.
    """
    row = _elsewhere(wanted)
    if row is None:
        return
    memory = f"--gpu-memory {row.get('memory', 'SIZE')}"
    remedy = f"leave --gpu out and state what PyTorch shows on it: {memory}"
    if "like" in row:
        remedy = f"take one that is like it: --gpu {row['like']} {memory}"
    raise InputError(f"{row['label']} is not in the table: {row['why']}", remedy=remedy)


def _elsewhere(wanted: str) -> Mapping[str, Any] | None:
    return next((r for r in _table()["elsewhere"] if wanted in map(_squeeze, r["names"])), None)


def why_not_here(name: str) -> str:
    """Label of an accelerator that the table cannot hold, and the reason; empty for others."""
    row = _elsewhere(_squeeze(name))
    return "" if row is None else f"{row['label']}: {row['why']}"


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


@cache
def all_gpus() -> tuple[Gpu, ...]:
    """Every row of the table, in its order."""
    return tuple(_gpu(row, _table()) for row in _table()["gpus"])


@cache
def _by_spelling() -> dict[str, Gpu]:
    """Squeezed name, label and aliases -> GPU; a spelling that two rows share is left out."""
    spellings: dict[str, set[int]] = {}
    for index, row in enumerate(_table()["gpus"]):
        for text in (row["name"], row["label"], *row.get("aliases", ())):
            spellings.setdefault(_squeeze(text), set()).add(index)
    gpus = all_gpus()
    return {text: gpus[min(found)] for text, found in spellings.items() if len(found) == 1}


@cache
def _aliases() -> tuple[tuple[str, Gpu], ...]:
    """Label or alias as written, and its GPU."""
    return tuple(
        (text, gpu)
        for row, gpu in zip(_table()["gpus"], all_gpus(), strict=True)
        for text in (row["label"], *row.get("aliases", ()))
    )


def _squeeze(text: str) -> str:
    """``NVIDIA A100-SXM4-80GB`` and ``a100 sxm4 80 gib`` -> ``a100sxm480gb``."""
    return _NOISE.sub("", text.lower()).replace("gib", "gb")


def _near(wanted: str) -> str:
    spellings = _by_spelling()
    found = {spellings[text].name: None for text in nearest(wanted, spellings, count=3)}
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _gpu(row: dict[str, Any], table: dict[str, Any]) -> Gpu:
    sources, context = table["sources"], table["contexts"][row["context"]]
    seen = [figure["bytes"] for figure in row["visible"]] or [row["marketing_bytes"]]
    power = row.get("board_power", {})
    cited = [*row["sources"], *(figure["source"] for figure in row["visible"])]
    return Gpu(
        name=row["name"],
        label=row["label"],
        marketing_bytes=row["marketing_bytes"],
        visible_bytes=min(seen),
        visible_high_bytes=max(seen),
        visible_note=row.get("visible_note", ""),
        context_bytes=(context["low_mib"] * MIB, context["high_mib"] * MIB),
        context_note=context["note"],
        peak_tflops={dtype: float(rate) for dtype, rate in row["peak_tflops"].items()},
        memory_gb_per_s=float(row["memory_gb_per_s"]),
        intra_node_gb_per_s=float(row["intra_node_gb_per_s"]),
        intra_node_link=row["intra_node_link"],
        pcie_gb_per_s=float(row["pcie_gb_per_s"]),
        compute_capability=_capability(row.get("compute_capability")),
        gfx=row.get("gfx", ""),
        board_watts=power.get("watts"),
        board_watts_source=sources[power["source"]]["title"] if power else "",
        sources=tuple(
            f"{sources[key]['title']}: {sources[key]['url']}"
            for key in dict.fromkeys([*cited, *context["sources"]])
        ),
    )


def _capability(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    major, _, minor = text.partition(".")
    return int(major), int(minor)
