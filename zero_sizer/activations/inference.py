"""Heights of prefill and decode beside the weights, from traced profiles.

A document (``data/inference.*.json``) is written by ``zero_sizer.tracing.inference``. Its rows say
for a mode, an attention implementation, bits of the weights and a range of tokens what the
phases hold: the prefill, the decode after it, and one like all that follow. Polynomials are those
of ``activations.structure``: of batch, tokens (of the prompt, or in the cache) and widths.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from operator import mul
from pathlib import Path
from typing import Any, NamedTuple

from zero_sizer.activations import ranges, structure
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity

SCHEMA_VERSION = 3
PREFIX = "inference."
_DATA = Path(__file__).parent / "data"
_BUNDLED = "bundled model "
GENERATE, SCORE = "generate", "score"
BEFORE, HEAD = -1, -2  # stand for numbers of blocks
BEGINS, RUNNING, AFTER = "begins", "running", "after"
_LONG = 8  # blocks that a family is traced at show every pattern
_FALLBACK = ("flash", "sdpa", "eager")


class Point(NamedTuple):
    """One height that a phase reaches.

    Attributes:
        num_bytes: live beside the weights, the cache included.
        place: what is running: ``block 12``, ``head``, ...
        module: name of the module with parameters that runs, or that ran last, without its block;
            empty where none did in the block.
        block: number of the block; ``BEFORE`` or ``HEAD`` outside of blocks.
        when: the module ``begins``, is ``running``, or it is ``after`` that.
        part: of that time, which is cut before and after each moment at which a module without
            parameters begins, ...
        parts: ... of so many.
    """

    num_bytes: int
    place: str
    module: str = ""
    block: int = BEFORE
    when: str = AFTER
    part: int = 0
    parts: int = 1


def structure_of(spec: ModelSpec) -> str | None:
    """Structure that models share in inference, where nothing is dropped."""
    found = structure.structure_of(spec.whole or spec.base or spec)
    if found is None:
        return None
    said = json.loads(found)
    del said["drops"]
    return json.dumps(said, sort_keys=True)


def traced_depth(kinds: Sequence[int]) -> int:
    """Blocks to trace, so that of each kind one is neither the first nor the last.

    The first of a stack may differ, and what a block leaves is seen where the next one begins.
    """
    missing = set(kinds)
    for depth, kind in enumerate(kinds):
        if depth:
            missing.discard(kind)
        if depth and not missing and depth + 1 < len(kinds):
            return depth + 2
    return len(kinds)


class Profile:
    """The phases of one model."""

    def __init__(self, document: Mapping[str, Any], layers: int) -> None:
        self._rows = document["rows"]
        self._polynomials = document["polynomials"]
        kinds = document["kinds"]
        self._kinds = kinds if len(kinds) == layers else [i % len(kinds) for i in range(layers)]
        traced = self._kinds if len(kinds) == layers else [i % len(kinds) for i in range(_LONG)]
        self._missing = Counter(self._kinds)
        self._missing.subtract(traced[: traced_depth(traced)])

    def attention(self, wanted: str, bits: int) -> str | None:
        """The implementation that transformers runs where ``wanted`` is asked for."""
        present = {row["attention"] for row in self._rows if row["bits"] == bits}
        order = _FALLBACK[_FALLBACK.index(wanted) :]
        return next((name for name in order if name in present), None)

    def points(  # noqa: PLR0913 (a row of the document, and where in it)
        self,
        phase: int,
        *,
        mode: str,
        attention: str,
        bits: int,
        batch: int,
        tokens: int,
        every: bool = False,
    ) -> list[Point]:
        """Heights that a phase reaches, the highest of each place; empty where nothing is known.

        Args:
            phase: 0 is the prefill, 1 the decode after it, 2 one like all that follow.
            mode: ``generate`` or ``score``.
            attention: that runs.
            bits: of the weights' dtype.
            batch: sequences.
            tokens: of the prompt; of a decode, in the cache before the prompt's first decode, or
                one less than there are.
            every: of every block, not of those alone at which most is held.
        """
        row = next(
            (
                row
                for row in self._rows
                if (row["mode"], row["attention"], row["bits"]) == (mode, attention, bits)
                and row["is_alone"] == (batch == 1)
                and row["sequence"][0] <= tokens <= row["sequence"][1]
            ),
            None,
        )
        if row is None or phase >= len(row["phases"]):
            return []
        monomials = _monomials(batch, tokens)
        values = [sum(map(mul, p, monomials)) for p in self._polynomials]
        left = sum(
            count * values[before["blocks"][kind]["step"]]
            for before in row["phases"][:phase]
            for kind, count in self._missing.items()
        )
        return [
            point._replace(num_bytes=point.num_bytes + left)
            for point in self._heights(row["phases"][phase], values, every=every)
        ]

    def _heights(
        self, found: Mapping[str, Any], values: list[int], *, every: bool
    ) -> Iterator[Point]:
        yield from _span(found["before"], values, 0, "before the blocks", BEFORE)
        level, blocks = values[found["enter"]], found["blocks"]
        yield from _span(found["first"], values, level, "block 0", 0)
        level = values[found["second"]]
        last: dict[int, tuple[int, int]] = {}
        for i, kind in enumerate(self._kinds):
            if i:
                key = i if every else kind
                if key not in last or level > last[key][0]:
                    last[key] = level, i
                level += values[blocks[kind]["step"]]
        for base, i in last.values():
            yield from _span(blocks[self._kinds[i]], values, base, f"block {i}", i)
        yield from _span(found["after"], values, level, "head", HEAD)


def _span(
    found: Mapping[str, Any], values: list[int], base: int, place: str, block: int
) -> Iterator[Point]:
    for when in (BEGINS, RUNNING):
        for name, levels in found[when].items():
            most = base + max(values[p] for p in levels)
            yield Point(most, f"{place}, {name}", name, block, when)
    for name, parts in found[AFTER].items():
        for part, levels in enumerate(parts):
            most = base + max(values[p] for p in levels)
            yield Point(most, place, name, block, AFTER, part, len(parts))


def _monomials(b: int, s: int) -> tuple[int, ...]:
    return b * s, 1, s, b, s * s, b * s * s, b * b


def profiled(spec: ModelSpec) -> ModelSpec:
    """The model whose widths the profile takes: a slice's own, or those of the whole model.

    Where heads fill the hidden width in every model of a structure, nothing tells which of the two
    a size follows, and a slice has fewer heads.
    """
    name = index().get(structure_of(spec) or "")
    if spec.whole is None or name is None or structure.specialised(_document(name), spec):
        return spec
    return spec.whole


def load(spec: ModelSpec) -> Profile | None:
    """The profile of ``spec``, by its structure or its bundled name; None where none is known."""
    return _load(Identity(spec.base or spec))


@lru_cache(maxsize=64)
def _load(identity: Identity) -> Profile | None:
    spec: ModelSpec = identity.of
    found = structure_of(spec)
    name = index().get(found) if found is not None else None
    if name is not None:
        document = _at_window(structure.specialised(_document(name), profiled(spec)), spec)
    elif spec.whole is None and spec.origin.startswith(_BUNDLED):
        document = _document(spec.origin.removeprefix(_BUNDLED).partition(" ")[0], missing={})
    else:
        document = None
    return Profile(document, spec.arch.num_layers or 0) if document else None


def _at_window(document: dict[str, Any] | None, spec: ModelSpec) -> dict[str, Any] | None:
    """The document with its ranges at the model's own window."""
    window = structure.window_of(spec)
    if document is None or window is None:
        return document
    rows = [ranges.moved(row, document["window"], window) for row in document["rows"]]
    return {**document, "rows": rows}


@cache
def index() -> dict[str, str]:
    """Structure -> name of its document."""
    found: dict[str, str] = _document("index", missing={})
    return found


def _document(name: str, missing: Any = None) -> Any:
    try:
        return json.loads((_DATA / f"{PREFIX}{name}.json").read_text("utf-8"))
    except FileNotFoundError:
        if missing is None:
            raise
        return missing
