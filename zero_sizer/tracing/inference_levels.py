"""Levels of a traced run of inference, cut at its forwards and blocks."""

from collections.abc import Callable, Sequence
from typing import Any

from zero_sizer.timeline.unpacking import relative
from zero_sizer.tracing import symbolic
from zero_sizer.tracing.recorder import Event, Gone, Made, Mark
from zero_sizer.tracing.symbolic import Poly


class Levels:
    """Levels of one run, cut at its forwards and blocks.

    Args:
        events: of the run.
        sizes: of every storage.
        kinds: of each traced block.
        envelope: keeps the polynomials that are the largest somewhere.
    """

    def __init__(
        self,
        events: Sequence[Event],
        sizes: Sequence[Poly],
        kinds: Sequence[int],
        envelope: Callable[[Sequence[Poly]], Sequence[Poly]],
    ) -> None:
        self._sizes, self._kinds, self._envelope = sizes, kinds, envelope
        self._zero: Poly = (0,) * len(sizes[0])
        self._levels: list[tuple[Event, Poly]] = []
        level = self._zero
        for event in events:
            if isinstance(event, Made | Gone):
                sign = 1 if isinstance(event, Made) else -1
                level = symbolic.add(level, sizes[event.storage], sign)
            self._levels.append((event, level))

    def phases(self) -> list[dict[str, Any]]:
        """Prefill, then decodes where there are some; each lasts until the next forward begins."""
        starts = [i for i, (e, _) in enumerate(self._levels) if _is(e, "loss")]
        ends = [*starts[1:], len(self._levels)]
        firsts = [0, *starts[1:]]
        return [self._phase(first, end) for first, end in zip(firsts, ends, strict=True)]

    def _phase(self, first: int, end: int) -> dict[str, Any]:
        enters = [i for i in range(first, end) if _is(self._levels[i][0], "enter")]
        at = [self._levels[i][1] for i in enters]
        kinds = self._kinds
        steps: dict[int, Poly] = {}
        for i in range(1, len(enters) - 1):
            steps.setdefault(kinds[i], symbolic.add(at[i + 1], at[i], -1))
        leave = next(i for i in range(enters[-1], end) if _is(self._levels[i][0], "leave"))
        spans = [*zip(enters, [*enters[1:], leave], strict=True)]
        blocks: dict[int, dict[str, Any]] = {}
        for i in range(1, len(enters)):
            if kinds[i] in steps:
                blocks.setdefault(
                    kinds[i], {**self._span(*spans[i], at[i]), "step": steps[kinds[i]]}
                )
        base = symbolic.add(at[-1], steps[kinds[-1]])
        return {
            "before": self._highest(first, enters[0], self._zero),
            "first": self._span(*spans[0], at[0]),
            "enter": at[0],
            "second": at[1],
            "blocks": [blocks[kind] for kind in sorted(blocks)],
            "after": self._span(leave, end, base),
        }

    def _span(self, first: int, end: int, base: Poly) -> dict[str, Any]:
        """Levels while each linear layer runs, and after each until the next one does."""
        linears: dict[str, list[Poly]] = {}
        after: dict[str, list[Poly]] = {}
        running = last = ""
        for event, level in self._levels[first:end]:
            if _is(event, "ends"):
                running, last = "", running
            if not running:
                after.setdefault(last, []).append(symbolic.add(level, base, -1))
            elif isinstance(event, Made):
                linears.setdefault(running, []).append(symbolic.add(level, base, -1))
            if _is(event, "module"):
                running = relative(event.name)  # type: ignore[union-attr]
        return {
            "linears": {name: list(self._envelope(found)) for name, found in linears.items()},
            "after": {name: list(self._envelope(found)) for name, found in after.items()},
        }

    def _highest(self, first: int, end: int, base: Poly) -> list[Poly]:
        found = [symbolic.add(level, base, -1) for _, level in self._levels[first:end]]
        return list(self._envelope(found or [self._zero]))


def _is(event: Event, kind: str) -> bool:
    return isinstance(event, Mark) and event.kind == kind
