"""The files that a simulated run leaves when asked: its trace, and a PyTorch memory snapshot."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zero_sizer.allocator.settings import settings_from_environment
from zero_sizer.allocator.snapshot import build_snapshot, write_snapshot
from zero_sizer.simulator.tracker import GPU, Event
from zero_sizer.util import files
from zero_sizer.util.files import require_writable
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Files to write after a run.

    Attributes:
        trace: every allocation and free, one JSON object a line.
        snapshot: a pickle that ``torch.cuda._memory_viz`` opens; the GPU's events only.
    """

    trace: str | None = None
    snapshot: str | None = None

    def __bool__(self) -> bool:
        return self.trace is not None or self.snapshot is not None

    def check(self) -> None:
        """Refuses before the run what could not be written after it.

        Raises:
            InputError: a file cannot be written.
        """
        require_writable(self.trace, "--trace")
        require_writable(self.snapshot, "--snapshot")

    def write(self, events: Iterable[Sequence[Any]]) -> None:
        """Writes what was asked for.

        Raises:
            InputError: a file cannot be written.
        """
        known = [Event(*event) for event in events]
        if self.trace is not None:
            write_trace(self.trace, known)
        if self.snapshot is not None:
            on_gpu = [event for event in known if event.device == GPU]
            settings = settings_from_environment()
            snapshot = build_snapshot(on_gpu, settings, frames_of=_frames)
            write_snapshot(Path(self.snapshot), snapshot)


NOTHING = Outputs()


def write_trace(path: str, events: Iterable[Sequence[Any]]) -> None:
    """Events as JSON lines.

    Raises:
        InputError: the file cannot be written.
    """
    lines = (json.dumps(dict(zip(Event._fields, e, strict=True))) + "\n" for e in events)
    files.write(path, (line.encode() for line in lines))


def _frames(event: Any) -> tuple[str, ...]:
    return tuple(name for name in (event.module, event.phase) if name)
