"""A traced model as a profile: the JSON that ``zero_sizer.activations`` reads."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from zero_sizer.errors import WitnessError
from zero_sizer.tracing import symbolic
from zero_sizer.tracing.depth import Stack
from zero_sizer.tracing.fitted import FittedSection, FittedStack, FittedStep, Range
from zero_sizer.tracing.sections import OUTSIDE
from zero_sizer.tracing.setups import FittedRange, Setup
from zero_sizer.tracing.symbolic import ZERO, Poly

SCHEMA_VERSION = 3
_EMPTY = FittedSection((FittedStep((), "", (ZERO,), ZERO),), ZERO, ZERO)


def shortest(poly: Poly) -> list[int] | int:
    """Coefficients of (b*s, 1, s, b, s*s, b*s*s, b*b) up to the last; that of b*s where alone."""
    const, s, b, bs, ss, bss, bb = poly
    values = [bs, const, s, b, ss, bss, bb]
    while values and values[-1] == 0:
        values.pop()
    return values[0] if len(values) == 1 else values


class _Table:
    """Values stored once; ``index`` is what stands for one."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def index(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


class Encoder:
    """Collects the fits of one model.

    Args:
        stacks: of the model.
        shorten: how a polynomial is written.
    """

    def __init__(self, stacks: Sequence[Stack], shorten: Callable[[Poly], Any] = shortest) -> None:
        self._stacks = stacks
        self._shorten = shorten
        self._names, self._labels = _Table(), _Table()
        self._polys, self._sections = _Table(), _Table()
        self._runs: dict[str, list[dict[str, Any]]] = {}

    def add(self, setup: Setup, fits: Sequence[FittedRange]) -> None:
        """The fits of one setup."""
        if not self._runs:
            self._stacks = _as_run(self._stacks, fits[0].stack)
        text = json.dumps([self._fit(fit) for fit in fits])
        entry = {
            "variant": setup.variant,
            "attention": setup.attention,
            "checkpointing": setup.checkpointing,
        }
        self._runs.setdefault(text, []).append(entry)

    def document(self, head: Mapping[str, Any]) -> dict[str, Any]:
        """The profile; ``head`` says what of."""
        stacks = [
            {"blocks": s.prefix, "depth": s.depth, "lead": s.lead, "period": s.period,
             "traced": s.traced, **({"kinds": list(s.kinds)} if s.kinds else {}),
             **({"row": list(s.kinds)} if s.kinds and s.followed else {}),
             **({"followed": list(s.followed)} if s.followed else {})}
            for s in self._stacks
        ]  # fmt: skip
        return {
            "schema_version": SCHEMA_VERSION,
            **head,
            "stacks": stacks,
            "names": list(self._names.numbers),
            "labels": [list(map(list, labels)) for labels in self._labels.numbers],
            "polynomials": [self._shorten(poly) for poly in self._polys.numbers],
            "sections": [list(section) for section in self._sections.numbers],
            "setups": [
                {"of": entries, "fits": json.loads(text)} for text, entries in self._runs.items()
            ],
        }

    def _fit(self, fit: FittedRange) -> dict[str, Any]:
        forward, backward = _by_place(fit.stack)
        late: list[Any] = []
        outside, blocks = _outside(fit.stack), []
        if len(outside) > 1 + sum(1 + len(stack.followed) for stack in self._stacks):
            raise WitnessError(f"{len(outside)} parts outside of {len(self._stacks)} stacks")
        for stack in self._stacks:
            names = [name for name in forward if name.rpartition(".")[0] == stack.prefix]
            pairs = [(forward[name][0], backward[name][0]) for name in names if name]
            _check_traced(stack, pairs)
            blocks.append([self._pair(pair) for pair in pairs])
            if stack.kinds:
                late.append(self._late(stack, [fit.stack.late[name] for name in names]))
                _check_kinds(stack, blocks[-1])
                continue
            start = stack.lead + stack.period
            pattern = [fit.stack.late[name] for name in names[start : start + stack.period]]
            late.append(self._polys.index(reduce(symbolic.add, pattern) if pattern else ZERO))
        return {
            "batch": _batch(fit.where),
            "sequence": list(fit.where.sequences),
            "outside": [self._pair(pair) for pair in outside],
            "blocks": blocks,
            "late": late,
            **({"images": list(fit.where.images)} if fit.where.images is not None else {}),
        }

    def _late(self, stack: Stack, late: list[Poly]) -> list[int]:
        """Of each block; of the last as of one of its kind before, without the model's output."""
        kinds = stack.kinds
        before = max(i for i, kind in enumerate(kinds[:-1]) if kind == kinds[-1])
        return [self._polys.index(poly) for poly in (*late[:-1], late[before])]

    def _pair(self, pair: tuple[FittedSection, FittedSection]) -> list[int]:
        return [self._sections.index(self._section(section)) for section in pair]

    def _section(self, section: FittedSection) -> tuple[Any, ...]:
        labels = tuple(
            (self._names.index(" ".join(step.runs)), self._names.index(step.completes))
            for step in section.steps
        )
        levels = tuple(
            (self._polys.index(step.end), *(self._polys.index(peak) for peak in step.peaks))
            for step in section.steps
        )
        flops, gradient = self._polys.index(section.flops), self._polys.index(section.gradient)
        return flops, gradient, self._labels.index(labels), *levels


def _as_run(stacks: Sequence[Stack], fit: FittedStack) -> list[Stack]:
    """The stacks that run, in that order: CLIP's class lists its text model first.

    Of text alone no block of a tower runs, nor does what a tower adds between later blocks.
    """
    order = {block.rpartition(".")[0]: -place for place, (block, *_) in enumerate(fit.rows[::-1])}
    found = sorted(
        (stack for stack in stacks if stack.prefix in order), key=lambda s: order[s.prefix]
    )
    return [stack if _is_followed(stack, fit) else replace(stack, followed=()) for stack in found]


def _is_followed(stack: Stack, fit: FittedStack) -> bool:
    """Whether something runs outside between two blocks of a stack, in either direction."""
    rows = [block.rpartition(".")[0] if block else OUTSIDE for block, *_ in fit.rows]
    around = zip(rows, rows[1:], rows[2:], strict=False)
    return (stack.prefix, OUTSIDE, stack.prefix) in around


def _batch(where: Range) -> list[int | None]:
    if where.samples is not None:
        return [where.samples, where.samples]
    return [1, None if where.with_batch else 1]


def _by_place(
    stack: FittedStack,
) -> tuple[dict[str, list[FittedSection]], dict[str, list[FittedSection]]]:
    forward: dict[str, list[FittedSection]] = {OUTSIDE: []}
    backward: dict[str, list[FittedSection]] = {OUTSIDE: []}
    for block, is_backward, section in stack.rows:
        (backward if is_backward else forward).setdefault(block, []).append(section)
    for block in (
        forward.keys() - backward.keys()
    ):  # its output is not used, as LLaVA's tower's last
        backward[block] = [_EMPTY]
    if forward.keys() != backward.keys():
        raise WitnessError(f"blocks without a forward: {backward.keys() - forward.keys()}")
    return forward, backward


def _outside(stack: FittedStack) -> list[tuple[FittedSection, FittedSection]]:
    """What lies outside of blocks, each with its backward, by the block that it follows.

    What is only added to a block's output has no part of its own in the forward, where nothing says
    that it begins.
    """
    forward = _by_block_before([row for row in stack.rows if not row[1]])
    backward = _by_block_before([row for row in stack.rows[::-1] if row[1]])
    if len(forward) == len(backward):  # of LLaVA's tower the last block has no backward
        return list(zip(forward.values(), backward.values(), strict=True))
    if not forward.keys() <= backward.keys():
        raise WitnessError(f"{len(forward)} parts outside of blocks, {len(backward)} backward")
    return [(forward.get(block, _EMPTY), section) for block, section in backward.items()]


def _by_block_before(rows: Sequence[tuple[str, bool, FittedSection]]) -> dict[str, FittedSection]:
    found: dict[str, FittedSection] = {}
    before = ""
    for block, _, section in rows:
        if block != OUTSIDE:
            before = block
        elif before in found:
            raise WitnessError(f"two parts behind {before or 'the beginning'}")
        else:
            found[before] = section
    return found


def _check_traced(stack: Stack, pairs: Sequence[Any]) -> None:
    if not pairs or len(pairs) not in (stack.traced, stack.depth):
        raise WitnessError(f"{len(pairs)} blocks of {stack.prefix} seen, not {stack.traced}")


def _check_kinds(stack: Stack, pairs: Sequence[Any]) -> None:
    """All blocks of a kind but its first must be the same."""
    seen: dict[int, Any] = {}
    met: set[int] = set()
    for kind, pair in zip(stack.kinds, pairs, strict=True):
        if kind in met and seen.setdefault(kind, pair) != pair:
            raise WitnessError(f"blocks of one kind differ in {stack.prefix}")
        met.add(kind)
