"""One rank's monitor, behind every integration: predicts, records, warns, logs, writes.

It may never break a run: whatever goes wrong becomes one line, and the monitor is off from then on.
"""

import atexit
import io
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import partial, wraps
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from zero_sizer.answer import Answer, answer_of
from zero_sizer.dryrun.measure import PinnedStorages, measure
from zero_sizer.dryrun.packages import installed
from zero_sizer.dryrun.recording import LiveBuffer, RankRecord, Recording
from zero_sizer.integrations import expectation as expected
from zero_sizer.integrations import live_job, meters
from zero_sizer.integrations.batches import shape_of
from zero_sizer.integrations.hooks import Hooks
from zero_sizer.integrations.live_job import Run
from zero_sizer.integrations.messages import say
from zero_sizer.integrations.meters import Figures, Meter
from zero_sizer.integrations.recorder import BETWEEN, FIRST_STEPS, Recorder, most
from zero_sizer.questions.jobs import flags_of
from zero_sizer.report.text import show_brief
from zero_sizer.sizing import size
from zero_sizer.units import GIB
from zero_sizer.util.terminal import one_line

_F = TypeVar("_F", bound=Callable[..., Any])
Log = Callable[[dict[str, float], int], Any]
"""Is handed metrics and the number of the optimizer step."""


def _harmless(method: _F) -> _F:
    """A method that fails says so in one line, and all of them do nothing afterwards."""

    @wraps(method)
    def guarded(self: "Monitor", *args: Any, **kwargs: Any) -> Any:
        if self.is_off:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # nothing of ours may end a run of days
            self.give_up(f"{type(error).__name__}: {error}")
            return None

    return guarded  # type: ignore[return-value]


def _nothing() -> None:
    """There is nothing to do."""


def _at_exit(reference: "weakref.ref[Monitor]") -> None:
    """A run ended without telling: an error that nobody caught, or an early exit."""
    monitor = reference()
    if monitor is not None:
        monitor.finish(getattr(sys, "last_exc", None) or getattr(sys, "last_value", None))


class Monitor:
    """Watches one rank of a run.

    Args:
        output: where the recording goes; of several ranks each has a file of its own.
        stated: flags of ``zero-sizer check`` as keywords, which win over what is seen.
        log: is handed metrics every ``log_every`` steps.
        log_every: steps; None where ``take_metrics`` is called instead.
        resets_peaks: see ``Meter``.

    Attributes:
        is_off: the run has ended, or something went wrong: nothing is watched any more.
        answer: the prediction; None until there is one.
    """

    def __init__(
        self,
        *,
        output: str | Path | None,
        stated: Mapping[str, Any],
        log: Log | None = None,
        log_every: int | None = None,
        resets_peaks: bool = True,
    ) -> None:
        self.is_off = False
        self.answer: Answer | None = None
        self._output = None if output is None else Path(output)
        self._stated = dict(stated)
        self._log, self._log_every = log, log_every
        self._resets_peaks = resets_peaks
        self._run: Run | None = None
        self._hooks: Hooks | None = None
        self._recorder: Recorder | None = None
        self._expectation: expected.Expectation | None = None
        self._notes: list[str] = []
        self._warned: set[str] = set()
        self._has_asked = False
        self._leaving: Callable[[], None] = _nothing
        self._went_back = True  # a backward since the last forward
        self._highest: Figures = {}
        self._highest_phase = "init"
        self._largest = (0, 0)  # rows and tokens of a batch
        self._engine: Any = None
        self._gpu: Any = None  # as at the start: at exit a simulated one is no more
        self._pinned: PinnedStorages | None = None

    @_harmless
    def start(self, run: Run, *, engine: Any = None) -> None:
        """Training begins: everything before is ``init``.

        Args:
            run: what is seen of it.
            engine: its DeepSpeed engine.
        """
        meter = Meter(resets_peaks=self._resets_peaks)
        self._run, self._engine, self._gpu = run, engine, meters.gpu_properties()
        if engine is not None and not meter.has_gpu:
            self._pinned = PinnedStorages()
            self._notes.append(
                "no GPU: tensors count where DeepSpeed would put them on a machine with GPUs"
            )
        self._recorder = Recorder(meter, self._buffers)
        self._note_peak(self._recorder.began().device, "init")
        self._leaving = partial(_at_exit, weakref.ref(self))  # which must not keep a model alive
        atexit.register(self._leaving)
        if run.config is None:
            self._say("no DeepSpeed config: memory is recorded, nothing is predicted")

    def follow(self, model: Any, optimizer: Any = None) -> None:
        """Put hooks on what the loop calls, which tell of its phases."""

        @_harmless
        def attach(self: "Monitor") -> None:
            self._hooks = Hooks(model, self._engine, optimizer, self)

        attach(self)

    @_harmless
    def note(self, text: str) -> None:
        """Print a line on the first rank, and keep it with the recording."""
        self._notes.append(text)
        self._say(text)

    @_harmless
    def batch(self, batch: Mapping[str, Any]) -> None:
        """A batch is about to be run: its tokens count, and before the first the job is sized."""
        recorder, shape = self._watched, shape_of(batch)
        if shape is not None:
            recorder.count_tokens(shape[0] * shape[1])
            self._largest = max(self._largest, shape, key=prod)
        if not self._has_asked and self._run is not None and self._run.config is not None:
            self._predict(batch)

    @_harmless
    def forward(self) -> None:
        """A forward begins; several before a backward are one phase."""
        recorder = self._watched
        if not self._went_back and recorder.current == "forward":
            return
        if recorder.current == "backward":
            self._leave()
            recorder.micro_step += 1
        self._went_back = False
        self._enter("forward")

    @_harmless
    def backward(self) -> None:
        """A backward begins."""
        if self._watched.current != "backward":
            self._went_back = True
            self._enter("backward")

    @_harmless
    def step(self) -> None:
        """The optimizer's step begins."""
        self._enter("step")

    @_harmless
    def stepped(self) -> None:
        """The optimizer's step is done."""
        recorder = self._watched
        self._leave()
        self._went_back = True
        recorder.stepped()
        recorder.enter(BETWEEN)
        self._compare(is_whole=recorder.step >= FIRST_STEPS)
        if recorder.step == FIRST_STEPS:
            self._write()
        if self._log_every and recorder.step % self._log_every == 0:
            self._send(recorder.step)

    @_harmless
    def mark(self, name: str) -> None:
        """Something between two steps has ended: a save, an evaluation."""
        recorder = self._watched
        if recorder.current == BETWEEN:
            self._leave(name)
            recorder.enter(BETWEEN)

    @_harmless
    def end_phase(self) -> None:
        """The phase is over, and what follows belongs to none."""
        self._leave()

    @_harmless
    def finish(self, error: BaseException | None = None) -> None:
        """Training has ended, of itself or by an error: the recording is written."""
        recorder = self._watched
        atexit.unregister(self._leaving)
        if self._hooks is not None:
            self._hooks.remove()
        phase, step, micro_step = recorder.current, recorder.step, recorder.micro_step
        with suppress(Exception):  # a GPU that failed tells nothing more
            self._leave()
        if error is not None:
            where = f" in {phase} of step {step}, micro step {micro_step}" if phase else ""
            self._notes.append(f"ended by {type(error).__name__}{where}: {one_line(str(error))}")
        self._compare(is_whole=False)
        self._write(is_last=True)
        self._engine, self._hooks = None, None
        if self._run is not None:
            self._run = replace(self._run, model=None)
        self.is_off = True

    def recording(self) -> Recording | None:
        """Everything kept so far; None before the start."""
        run, recorder = self._run, self._recorder
        if run is None or recorder is None:
            return None
        sizing = self.answer.sizing if self.answer else None
        job = live_job.recorded(
            run, self._gpu, sizing.job if sizing else None, sizing.plan if sizing else None
        )
        return Recording(
            how=recorder.how,
            versions=installed(),
            world_size=run.world_size,
            job=job,
            ranks=(
                RankRecord(
                    rank=run.rank,
                    phases=recorder.phases(),
                    steps=tuple(recorder.steps),
                    notes=tuple(self._notes),
                ),
            ),
            notes=tuple(self._notes),
            prediction=expected.prediction_of(self.answer) if self.answer else {},
        )

    def take_metrics(self) -> dict[str, float]:
        """Metrics in GiB since the last time, by the names that trackers show."""
        if self.is_off or self._recorder is None:
            return {}
        found: dict[str, float] = {}
        for phase, figures in self._recorder.take_log().items():
            for device, of_device in figures.items():
                for name, value in of_device.items():
                    found[f"memory/{device}_{name}_{phase}_gib"] = value / GIB
        if self._expectation is not None and found:
            found["memory/gpu_predicted_gib"] = self._expectation.expected / GIB
        return found

    def give_up(self, why: str) -> None:
        """Say why, once, and let the run be."""
        self.is_off = True
        with suppress(Exception):
            if self._hooks is not None:
                self._hooks.remove()
            self._say(f"warning: nothing is watched any more ({one_line(why)})", every_rank=True)

    @property
    def is_stepping(self) -> bool:
        """True while the optimizer steps."""
        return self._recorder is not None and self._recorder.current == "step"

    @property
    def _watched(self) -> Recorder:
        if self._recorder is None:
            raise RuntimeError("training has not begun")
        return self._recorder

    def _predict(self, batch: Mapping[str, Any]) -> None:
        """Size the job; an error is one line, and the run is recorded all the same."""
        run, self._has_asked = self._run, True
        if run is None:
            return
        self._run = replace(run, loop=live_job.loop_with(run, batch))
        try:
            self.answer = answer_of(size(live_job.job_of(self._run, flags_of(self._stated))))
        except Exception as error:  # whatever we cannot size, others train
            self._say(f"warning: nothing is predicted ({one_line(str(error))})")
            return
        if self.answer.sizing.plan is not None:
            self._expectation = expected.expectation_of(self.answer)
        text = io.StringIO()
        with redirect_stdout(text):
            show_brief(self.answer)
        self._say(text.getvalue().rstrip())

    def _enter(self, name: str) -> None:
        self._leave()
        self._watched.enter(name)

    def _leave(self, name: str | None = None) -> None:
        record = self._watched.leave(name)
        if record is not None:
            self._note_peak(record.device, record.name)

    def _note_peak(self, figures: Mapping[str, Mapping[str, int]], phase: str) -> None:
        before = expected.gpu_figures(self._highest).get("max_allocated", 0)
        if expected.gpu_figures(figures).get("max_allocated", 0) > before:
            self._highest_phase = phase
        self._highest = most(self._highest, figures)

    def _compare(self, *, is_whole: bool) -> None:
        """Warn where the run has left what was expected, once for each way of leaving it."""
        if self._expectation is None:
            return
        figures = expected.gpu_figures(self._highest)
        for text in self._expectation.remarks(figures, self._highest_phase, is_whole=is_whole):
            way = text.partition(":")[0]
            if way not in self._warned:
                self._warned.add(way)
                said = text + self._longer_batch()
                self._notes.append(said)
                self._say(f"warning: {said}", every_rank=True)

    def _longer_batch(self) -> str:
        """The largest batch, where it is larger than what was predicted for."""
        plan = self.answer.sizing.plan if self.answer is not None else None
        rows, tokens = self._largest
        if plan is None or rows * tokens <= plan.micro_batch * plan.seq_len:
            return ""
        return (
            f"; the largest batch had {rows} x {tokens} tokens, and {plan.micro_batch} x "
            f"{plan.seq_len} were predicted: seq_len= says the most there are"
        )

    def _buffers(self, phase: str) -> Iterable[LiveBuffer]:
        if self._engine is None:
            return ()
        return measure(self._engine, pinned=self._pinned, walk=False).rows()

    def _send(self, step: int) -> None:
        metrics = self.take_metrics()
        if self._log is not None and metrics and self._is_first:
            self._log(metrics, step)

    @property
    def _is_first(self) -> bool:
        return self._run is None or self._run.rank == 0

    def path(self) -> Path | None:
        """The file of this rank."""
        if self._output is None or self._run is None or self._run.world_size == 1:
            return self._output
        return self._output.with_suffix(f".rank{self._run.rank}{self._output.suffix}")

    def _write(self, *, is_last: bool = False) -> None:
        path, recording = self.path(), self.recording()
        if path is None or recording is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        recording.write(path)
        if is_last:
            self._say(f"recording written to {path}; `zero-sizer crosscheck --recording {path}`")

    def _say(self, text: str, *, every_rank: bool = False) -> None:
        if not (self._is_first or every_rank):
            return
        say(text, 0 if self._run is None else self._run.rank)
