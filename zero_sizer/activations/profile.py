"""Evaluates a profile (the numbers' meaning: ``zero_sizer.activations``)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from zero_sizer.activations.stacks import late_of, row_of
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass

FALLBACK = ("flash", "sdpa", "eager")  # transformers' own order where a model lacks one
_Poly = tuple[tuple[int, int], ...]  # (which monomial, coefficient), zeros left out
_MONOMIALS = 7  # b*s, 1, s, b, s*s, b*s*s, b*b


class StepLevel(NamedTuple):
    """A piece of a section; levels count from where the section begins.

    Attributes:
        runs: module that begins to run, relative to the block; empty where none does.
        completes: parameter whose gradient is complete at its end, relative to the block.
        peak: highest level within, bytes.
        end: level at its end, bytes.
    """

    runs: str
    completes: str
    peak: int
    end: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """A section as stored."""

    flops: _Poly
    gradient: _Poly
    labels: tuple[tuple[str, str], ...]
    ends: tuple[_Poly, ...]
    peaks: tuple[tuple[_Poly, ...], ...]
    highest: tuple[_Poly, ...]


class ProfileSection:
    """One part's forward or backward at one batch and sequence."""

    __slots__ = ("_at", "_late", "_stored", "end", "peak")

    end: int
    peak: int

    def __init__(self, stored: _Stored, at: tuple[int, ...], late: int = 0) -> None:
        """``late``: bytes that blocks which were not traced leave to be freed at its end."""
        self._stored = stored
        self._at = at
        self._late = late
        self.end = _value(stored.ends[-1], at) - late
        self.peak = max([_value(poly, at) for poly in stored.highest])

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiply-add as two; causal attention counted in full."""
        return _value(self._stored.flops, self._at)

    @property
    def gradient(self) -> int:
        """Bytes of the gradient with which a block's backward begins."""
        return _value(self._stored.gradient, self._at)

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Modules that each piece runs, and parameters that it completes."""
        return self._stored.labels

    @property
    def steps(self) -> tuple[StepLevel, ...]:
        """The section's pieces, in order."""
        stored, at = self._stored, self._at
        rows = zip(stored.labels, stored.peaks, stored.ends, strict=True)
        steps = [
            StepLevel(*label, max([_value(p, at) for p in peaks]), _value(end, at))
            for label, peaks, end in rows
        ]
        steps[-1] = steps[-1]._replace(end=self.end)
        return tuple(steps)


@dataclass(frozen=True, slots=True)
class ProfilePart:
    """Equal blocks in a row, or what lies outside of blocks.

    Attributes:
        blocks: qualified name of their list (``model.layers``); empty outside.
        first: index of the first in that list.
        count: how many.
        forward: of each.
        backward: of each.
    """

    blocks: str
    first: int
    count: int
    forward: ProfileSection
    backward: ProfileSection


@dataclass(frozen=True, slots=True)
class StepActivations:
    """Activations of one micro step.

    Attributes:
        parts: in forward order.
    """

    parts: tuple[ProfilePart, ...]

    @property
    def saved(self) -> int:
        """Bytes held between forward and backward."""
        return sum(part.count * part.forward.end for part in self.parts)

    @property
    def forward_peak(self) -> int:
        """Highest level of the forward, bytes."""
        return _peak([(part.count, part.forward) for part in self.parts], 0)

    @property
    def backward_peak(self) -> int:
        """Highest level of the backward, bytes."""
        return _peak([(part.count, part.backward) for part in reversed(self.parts)], self.saved)

    @property
    def peak(self) -> int:
        """Highest level of the step, bytes."""
        return max(self.forward_peak, self.backward_peak)

    @property
    def forward_flops(self) -> int:
        """Floating-point operations of the forward."""
        return sum(part.count * part.forward.flops for part in self.parts)

    @property
    def backward_flops(self) -> int:
        """Floating-point operations of the backward, recomputation included."""
        return sum(part.count * part.backward.flops for part in self.parts)


def _peak(sections: Sequence[tuple[int, ProfileSection]], level: int) -> int:
    highest = level
    for count, section in sections:
        last = level + max((count - 1) * section.end, 0)
        highest = max(highest, last + section.peak)
        level += count * section.end
    return highest


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part's sections are stored."""

    blocks: str
    first: int
    count: int
    forward: int
    backward: int


@dataclass(frozen=True, slots=True)
class _FittedRange:
    """The parts of a setup where batch and sequence lie in given ranges."""

    batch: tuple[int, int]
    sequence: tuple[int, int]
    places: tuple[_Place, ...]
    late: _Poly

    def covers(self, b: int, s: int) -> bool:
        return self.batch[0] <= b <= self.batch[1] and self.sequence[0] <= s <= self.sequence[1]


class Profile:
    """A traced model.

    Args:
        document: the profile's JSON.

    Attributes:
        name: of the model.
        notes: what was assumed.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.name = str(document["name"])
        self.notes: tuple[str, ...] = tuple(document["notes"])
        self._fits: dict[tuple[Any, ...], tuple[_FittedRange, ...]] = {}
        self._sections: dict[int, _Stored] = {}
        self._parts_at = lru_cache(maxsize=1024)(self._parts)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Blocks of each stack, encoder first."""
        return {stack["blocks"]: stack["depth"] for stack in self._document["stacks"]}

    @cached_property
    def attentions(self) -> dict[str, tuple[str, ...]]:
        """Variant -> the kinds of attention that it was traced with."""
        found: dict[str, dict[str, None]] = {}
        for setup in self._document["setups"]:
            for entry in setup["of"]:
                found.setdefault(entry["variant"], {})[entry["attention"]] = None
        return {variant: tuple(kinds) for variant, kinds in found.items()}

    def attention_for(self, variant: str, attention: str) -> str:
        """The attention that runs where ``attention`` is asked for: itself, else the next slower.

        Raises:
            UnsupportedError: the variant was not traced with any.
        """
        known = self.attentions.get(variant, ())
        for kind in FALLBACK[FALLBACK.index(attention) :] if attention in FALLBACK else ():
            if kind in known:
                return kind
        raise UnsupportedError(f"{self.name} has no profile of {attention} attention in {variant}")

    def evaluate(
        self,
        variant: str,
        attention: str,
        b: int,
        s: int,
        *,
        checkpointing: bool = False,
        depths: Mapping[str, int] | None = None,
    ) -> StepActivations:
        """Activations of one micro step.

        Args:
            variant: ``bf16`` (any 16-bit model), ``fp32``, or ``autocast`` (16-bit over fp32); with
                `` zero3`` behind it under ZeRO-3's linear layers, where they do otherwise than
                torch's. There also ``mixed``: 16-bit with an adapter in fp32.
            attention: ``flash``, ``sdpa`` or ``eager``; one of ``attentions[variant]``.
            b: samples.
            s: tokens of each.
            checkpointing: whether every block is recomputed.
            depths: blocks per stack, where not the model's own.

        Raises:
            InputError: b or s is below 1, or longer than was traced.
            UnsupportedError: the model does not run so, or is too shallow for its profile.
        """
        for fit in self._fits_of(variant, attention, checkpointing, depths):
            if fit.covers(b, s):
                return self._parts_at(Identity(fit), b, s)
        raise InputError(f"{self.name}: no profile for {b} samples of {s} tokens")

    def _parts(self, identity: Identity, b: int, s: int) -> StepActivations:
        fit: _FittedRange = identity.of
        at = (b * s, 1, s, b, s * s, b * s * s, b * b)
        sections: dict[int, ProfileSection] = {}
        parts = []
        for place in fit.places:
            for number in (place.forward, place.backward):
                if number not in sections:
                    sections[number] = ProfileSection(self._stored(number), at)
            forward, backward = sections[place.forward], sections[place.backward]
            parts.append(ProfilePart(place.blocks, place.first, place.count, forward, backward))
        if fit.late:
            last = ProfileSection(self._stored(fit.places[-1].forward), at, _value(fit.late, at))
            parts[-1] = replace(parts[-1], forward=last)
        return StepActivations(tuple(parts))

    def _stored(self, number: int) -> _Stored:
        stored = self._sections.get(number)
        if stored is None:
            stored = self._sections[number] = _stored(self._document, number)
        return stored

    def _fits_of(
        self,
        variant: str,
        attention: str,
        checkpointing: bool,
        depths: Mapping[str, int] | None,
    ) -> tuple[_FittedRange, ...]:
        key = (variant, attention, checkpointing, tuple(depths.items()) if depths else ())
        fits = self._fits.get(key)
        if fits is None:
            setup = self._setup(variant, attention, checkpointing)
            stacks = [{**s, "depth": (depths or {}).get(s["blocks"], s["depth"])}
                      for s in self._document["stacks"]]  # fmt: skip
            polys = self._document["polynomials"]
            fits = self._fits[key] = tuple(_fit(fit, stacks, polys) for fit in setup["fits"])
        return fits

    def _setup(self, variant: str, attention: str, checkpointing: bool) -> Mapping[str, Any]:
        wanted = {"variant": variant, "attention": attention, "checkpointing": checkpointing}
        for setup in self._document["setups"]:
            if wanted in setup["of"]:
                found: Mapping[str, Any] = setup
                return found
        raise UnsupportedError(f"{self.name} has no profile of {attention} attention in {variant}")


def _value(poly: _Poly, at: Sequence[int]) -> int:
    total = 0
    for index, coefficient in poly:
        total += coefficient * at[index]
    return total


def _stored(document: Mapping[str, Any], number: int) -> _Stored:
    flops, gradient, labels, *levels = document["sections"][number]
    polys, names = document["polynomials"], document["names"]
    ends = tuple(_sparse(polys[end]) for end, *_ in levels)
    peaks = tuple(tuple(_sparse(polys[peak]) for peak in peaks) for _, *peaks in levels)
    return _Stored(
        flops=_sparse(polys[flops]),
        gradient=_sparse(polys[gradient]),
        labels=tuple((names[a], names[b]) for a, b in document["labels"][labels]),
        ends=ends,
        peaks=peaks,
        highest=_highest({poly for row in peaks for poly in row}),
    )


def _sparse(coefficients: Sequence[int] | int) -> _Poly:
    if isinstance(coefficients, int):  # of b*s alone
        return ((0, coefficients),)
    return tuple((i, c) for i, c in enumerate(coefficients) if c)


def _highest(polys: set[_Poly]) -> tuple[_Poly, ...]:
    """Without those that another exceeds in every coefficient."""
    rows = {poly: tuple(dict(poly).get(i, 0) for i in range(_MONOMIALS)) for poly in polys}
    return tuple(
        poly
        for poly, row in rows.items()
        if not any(
            other != row and all(x >= y for x, y in zip(other, row, strict=True))
            for other in rows.values()
        )
    )


def _fit(
    fit: Mapping[str, Any],
    stacks: Sequence[Mapping[str, Any]],
    polys: Sequence[Sequence[int] | int],
) -> _FittedRange:
    outside = iter([_Place("", 0, 1, *pair) for pair in fit["outside"]])
    places = [next(outside)]
    late = [0] * _MONOMIALS
    for i, stack in enumerate(stacks):
        traced = [(forward, backward) for forward, backward in fit["blocks"][i]]
        row = row_of(stack, len(traced))
        begin = 0
        for end in (*(number + 1 for number in stack.get("followed", ())), len(row)):
            pairs = [traced[index] for index in row[begin:end]]
            places += [*_places(stack["blocks"], pairs, begin), next(outside)]
            begin = end
        for number, times in late_of(stack, row, fit["late"][i], len(traced)):
            for index, coefficient in _sparse(polys[number]):
                late[index] += times * coefficient
    return _FittedRange(
        batch=(fit["batch"][0], fit["batch"][1] or 2**62),
        sequence=(fit["sequence"][0], fit["sequence"][1]),
        places=tuple(places),
        late=_sparse(late),
    )


def _places(blocks: str, row: Sequence[tuple[int, int]], first: int) -> list[_Place]:
    """Blocks from number ``first`` on in order, equal ones in a row as one place."""
    places: list[_Place] = []
    for index, pair in enumerate(row, start=first):
        last = places[-1] if places else None
        if last is not None and (last.forward, last.backward) == pair:
            places[-1] = replace(last, count=last.count + 1)
        else:
            places.append(_Place(blocks, index, 1, *pair))
    return places
