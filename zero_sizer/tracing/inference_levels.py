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
            "before": self._span(first, enters[0], self._zero),
            "first": self._span(*spans[0], at[0]),
            "enter": at[0],
            "second": at[1],
            "blocks": [blocks[kind] for kind in sorted(blocks)],
            "after": self._span(leave, end, base),
        }

    def _span(self, first: int, end: int, base: Poly) -> dict[str, Any]:
        """Levels where each module begins, while it runs, and after it until the next one begins.

        A module that runs within another, which owns parameters too, takes its place. ``after`` is
        cut before and after the moment at which a module without parameters begins.
        """
        begins: dict[str, list[Poly]] = {}
        running: dict[str, list[Poly]] = {}
        after: dict[str, list[list[Poly]]] = {}
        now = last = ""
        for event, level in self._levels[first:end]:
            at = symbolic.add(level, base, -1)
            name = relative(event.name) if isinstance(event, Mark) else ""
            if _is(event, "ends") and name == now:
                now = ""
            if not now:
                parts = after.setdefault(last, [[]])
                if isinstance(event, Mark) and event.kind in _PASSES:
                    parts[-1] = parts[-1] or [at]
                    parts += [[at], [at]]
                parts[-1].append(at)
            elif isinstance(event, Made):
                running.setdefault(now, []).append(at)
            if _is(event, "module"):
                now = last = name
                begins.setdefault(now, []).append(at)
        kept = {
            key: {name: list(self._envelope(found)) for name, found in levels.items()}
            for key, levels in (("begins", begins), ("running", running))
        }
        cut = {name: [list(self._envelope(p)) for p in parts] for name, parts in after.items()}
        return {**kept, "after": cut}


_PASSES = ("passes", "enter", "loss")  # a module without parameters of its own begins


def _is(event: Event, kind: str) -> bool:
    return isinstance(event, Mark) and event.kind == kind
