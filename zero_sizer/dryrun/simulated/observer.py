"""Phase records of a simulated run."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from zero_sizer.dryrun.owners import owned
from zero_sizer.dryrun.recording import LiveBuffer, PhaseRecord
from zero_sizer.simulator.tracker import GPU, HOST, LOCKED, NVME, PINNED, Tracker


class PhaseObserver:
    """Asks the tracker what each phase held, and who owns what is left at its end.

    Args:
        tracker: counts the storages.
        progress: called with (done, phase name) at every phase's end.

    Attributes:
        records: the phases so far.
        num_events: the tracker's events up to the last phase's end; later ones are the run's own
            clearing up.
    """

    def __init__(self, tracker: Tracker, progress: Callable[[int, str], None]) -> None:
        self.records: list[PhaseRecord] = []
        self.num_events = 0
        self._tracker = tracker
        self._progress = progress
        self._now = ("init", 0, 0)

    def extend(self) -> None:
        """Counts what a script did after the last phase's end among that phase's peaks."""
        if self.records:
            last, now = self.records[-1], self._figures()
            device = {
                place: {
                    name: max(number, now[place][name]) if name.startswith("max_") else number
                    for name, number in figures.items()
                }
                for place, figures in last.device.items()
            }
            self.records[-1] = replace(last, device=device)

    def begin(self, name: str, *, step: int, micro_step: int) -> None:
        """A phase begins; its peak starts from what is live."""
        self._now = (name, step, micro_step)
        self._tracker.start_phase(name)

    def end(self, engine: Any) -> None:
        """A phase is over: note its figures."""
        name, step, micro_step = self._now
        self.records.append(
            PhaseRecord(
                name=name,
                step=step,
                micro_step=micro_step,
                device=self._figures(),
                live=live_rows(engine, self._tracker),
            )
        )
        self.num_events = len(self._tracker.events or ())
        self._progress(len(self.records), name)

    def _figures(self) -> dict[str, dict[str, int]]:
        tracker = self._tracker
        uncached = tracker.live_host() - tracker.live(PINNED)
        figures = {
            GPU: {
                "allocated": tracker.live(GPU),
                "max_allocated": tracker.peak(GPU),
                "reserved": tracker.reserved(GPU),
                "max_reserved": tracker.peak_reserved(GPU),
            },
            HOST: {
                "allocated": tracker.live_host(),
                "max_allocated": tracker.peak_host(),
                "reserved": uncached + tracker.reserved(PINNED),
                "pinned": tracker.live(PINNED) + tracker.live(LOCKED),
            },
        }
        if tracker.peak(NVME):
            figures[NVME] = {"allocated": tracker.live(NVME), "max_allocated": tracker.peak(NVME)}
        return figures


def live_rows(engine: Any, tracker: Tracker) -> tuple[LiveBuffer, ...]:
    """Every live storage, summed by the attribute of the engine that owns it.

    What no attribute owns is an activation when forward created it, and ``other`` otherwise.
    """
    from zero_sizer.dryrun.measure import Tally

    tally = Tally(lambda storage, place: tracker.place(storage))  # type: ignore[arg-type]  # duck
    for owner in owned(engine):
        tally.add(owner)
    for storage, phase in tracker.storages():
        if phase == "forward":
            tally.add_storage(storage, "saved for backward", "activations", GPU)
        else:
            tally.add_storage(storage, f"created in {phase}", "other", GPU)
    return tally.rows()
