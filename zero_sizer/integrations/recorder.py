"""The phases of a run that matter, kept while it goes on: its first, its highest and its last step.

A run has a million phases; the recording of one stays small however long it is.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from zero_sizer.dryrun.owners import GPU, HOST
from zero_sizer.dryrun.recording import SIMULATED, TRAINED, LiveBuffer, PhaseRecord, StepRecord
from zero_sizer.integrations.meters import Figures, Meter

FIRST_STEPS = 2
"""Steps kept whole: the first allocates the optimizer's states, the second is as all others are."""
_STEPS = 64  # of which the seconds are kept
_MICRO_STEPS = 2  # of a step, kept apart; the later ones are folded into one
BETWEEN = "between steps"
_Read = Mapping[str, Mapping[str, int]]
Buffers = Callable[[str], Iterable[LiveBuffer]]
"""Phase -> what is alive when it has ended."""


class Recorder:
    """Phases as they come, and the few that are kept.

    Args:
        meter: reads the figures.
        buffers: counts live buffers by their owner.

    Attributes:
        current: the phase that goes on, None between phases.
        step: optimizer step, from 0.
        micro_step: micro step within it.
        steps: seconds of the last steps.
        since_log: phase -> device -> figure, the most since ``take_log``.
    """

    def __init__(self, meter: Meter, buffers: Buffers) -> None:
        self.current: str | None = None
        self.step = self.micro_step = 0
        self.steps: deque[StepRecord] = deque(maxlen=_STEPS)
        self.since_log: dict[str, Figures] = {}
        self._meter = meter
        self._is_simulated = meter.is_simulated
        self._buffers = buffers
        self._first: list[PhaseRecord] = []
        self._highest: list[PhaseRecord] = []
        self._last: list[PhaseRecord] = []
        self._now: list[PhaseRecord] = []
        self._tokens = 0
        self._at = time.perf_counter()

    @property
    def how(self) -> str:
        """Kind of the recording."""
        return SIMULATED if self._is_simulated else TRAINED

    def began(self) -> PhaseRecord:
        """The record of everything before the first step."""
        record = self._record("init")
        self._first.append(record)
        self.enter(BETWEEN)
        return record

    def enter(self, name: str) -> None:
        """A phase begins, and the one before it, if any, is over."""
        self.leave()
        self.current = name
        self._meter.begin()

    def leave(self, name: str | None = None) -> PhaseRecord | None:
        """The phase is over; its record, None where there was none or it has no name."""
        phase, self.current = name or self.current, None
        if phase in (None, BETWEEN):
            return None
        record = self._record(str(phase))
        self._keep(record)
        return record

    def count_tokens(self, tokens: int) -> None:
        """A batch has so many."""
        self._tokens += tokens

    def stepped(self) -> None:
        """The optimizer step is done: its seconds are taken."""
        now = time.perf_counter()
        self.steps.append(StepRecord(step=self.step, seconds=now - self._at, tokens=self._tokens))
        self._at, self._tokens = now, 0
        self.step, self.micro_step = self.step + 1, 0

    def phases(self) -> tuple[PhaseRecord, ...]:
        """Everything kept, in order."""
        kept = [*self._first, *self._highest, *self._last, *self._now]
        once = {(p.step, p.name, p.micro_step): p for p in kept}
        return tuple(sorted(once.values(), key=lambda p: p.step))

    def take_log(self) -> dict[str, Figures]:
        """Phase -> device -> figure, the most since the last time."""
        found, self.since_log = self.since_log, {}
        return found

    def _record(self, name: str) -> PhaseRecord:
        figures = self._meter.read()
        watches = self.step < FIRST_STEPS and name in ("init", "step")
        live = tuple(self._buffers(name)) if watches else ()
        on_host = [buffer for buffer in live if buffer.device == HOST]
        if live:
            figures[HOST]["allocated"] = sum(buffer.num_bytes for buffer in on_host)
            figures[HOST]["pinned"] = sum(b.num_bytes for b in on_host if b.pinned)
        if not self._meter.has_gpu and live:
            there = sum(buffer.num_bytes for buffer in live if buffer.device == GPU)
            figures[GPU] = {"allocated": there}
        return PhaseRecord(
            name=name, step=self.step, micro_step=self.micro_step, device=figures, live=live
        )

    def _keep(self, record: PhaseRecord) -> None:
        seen = self.since_log.setdefault(record.name, {})
        self.since_log[record.name] = most(seen, record.device)
        if self._now and record.step != self._now[0].step:
            self._put_away()
        same = [phase for phase in self._now if phase.name == record.name]
        before = same[-1] if same else None
        if before is not None and before.micro_step >= _MICRO_STEPS:
            self._now.remove(before)
            record = replace(record, device=_folded(before.device, record.device))
        self._now.append(record)

    def _put_away(self) -> None:
        """A step whose last phase is known goes to the first, the highest, or the last."""
        done, self._now = self._now, []
        if done[0].step < FIRST_STEPS:
            self._first += done
            return
        self._last = done
        if not self._highest or _height(done) > _height(self._highest):
            self._highest = done


def most(one: _Read, other: _Read) -> Figures:
    """The higher of each figure."""
    found = {device: dict(figures) for device, figures in one.items()}
    for device, figures in other.items():
        mine = found.setdefault(device, {})
        for name, value in figures.items():
            mine[name] = max(mine.get(name, 0), value)
    return found


def _folded(before: _Read, now: _Read) -> Figures:
    """Figures of several micro steps as one's: the highest peaks, and the last ends."""
    highest = most(before, now)
    return {
        device: {n: highest[device][n] if n.startswith("max_") else v for n, v in figures.items()}
        for device, figures in now.items()
    }


def _height(phases: Iterable[PhaseRecord]) -> int:
    """Most bytes of the phases: of the GPU, or of the process where there is none."""
    figures = [phase.device for phase in phases]
    gpu = [f.get(GPU, {}) for f in figures]
    found = max(max(g.get("max_allocated", 0), g.get("allocated", 0)) for g in gpu)
    return found or max(f.get(HOST, {}).get("resident", 0) for f in figures)
