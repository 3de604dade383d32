"""Reading a log: every memory failure in it, each with the phase that its stack tells."""

import re
import sys
from collections.abc import Iterable, Iterator

from zero_sizer.errors import InputError
from zero_sizer.ledger.moments import Phase
from zero_sizer.logs import messages, stack
from zero_sizer.logs.symptom import Kind, Symptom
from zero_sizer.util import files
from zero_sizer.util.records import dataclass

STDIN = "-"
MAX_BYTES = 256 * 2**20
_LONGEST = 4_000  # characters of a line that are looked at
_MOST = 1_000  # failures kept: a log may repeat one for ever
_MOST_FRAMES = 500
_MOST_STREAMS = 10_000  # ranks whose stacks are kept apart
_STREAM = re.compile(r"^(?:\S{1,60}: )?\[?(?:[Rr]ank[ :]?)([0-9]{1,7})\]?:")
_ANSI = re.compile(r"\x1b\[[0-9;]{0,16}m")
_BEGINS = ("Traceback (most recent call last)", "─ Traceback ", "Traceback (most recent")


@dataclass(frozen=True, kw_only=True)
class Log:
    """Contents of a log, as far as memory is concerned.

    Attributes:
        source: its name.
        symptoms: failures in the order of the log.
        num_lines: lines that were read.
        last_label: of ``see_memory_usage``, before the first failure; empty where there is none.
        last_allocated: bytes that the line said were allocated on the GPU; 0 where none did.
    """

    source: str
    symptoms: tuple[Symptom, ...]
    num_lines: int
    last_label: str = ""
    last_allocated: int = 0

    @property
    def cause(self) -> Symptom | None:
        """The failure that the others follow from: the first that says why."""
        telling = [s for s in self.symptoms if s.kind is not Kind.KILLED]
        return next(iter(telling or self.symptoms), None)


def read(path: str) -> Log:
    """Reads a log file; ``-`` is standard input.

    Raises:
        InputError: it cannot be read, or is larger than 256 MiB.
    """
    if path == STDIN:
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:
            raise InputError("there is no standard input", where=STDIN)
        raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise InputError(f"is larger than {MAX_BYTES >> 20} MiB: not a log", where=STDIN)
    else:
        raw = files.read_bytes(path, MAX_BYTES, "a log")
    return of_lines(raw.decode("utf-8", "replace").splitlines(), path)


def of_lines(lines: Iterable[str], source: str) -> Log:
    """The failures in the lines of a log."""
    reader = _Reader()
    for line in lines:
        reader.take(line)
    return Log(
        source=source,
        symptoms=tuple(reader.symptoms),
        num_lines=reader.number,
        last_label=reader.label,
        last_allocated=reader.allocated,
    )


class _Reader:
    """Line by line: stacks of each rank, the last label, and failures."""

    def __init__(self) -> None:
        self.number = 0
        self.symptoms: list[Symptom] = []
        self.label = ""
        self.allocated = 0
        self._stacks: dict[str, list[stack.Frame]] = {}

    def take(self, line: str) -> None:
        """One more line."""
        self.number += 1
        line = _ANSI.sub("", line[:_LONGEST])
        stream = _STREAM.match(line)
        whose = stream[1] if stream else ""
        if any(words in line for words in _BEGINS):
            self._stacks.pop(whose, None)
        frame = stack.frame_in(line)
        if frame is not None:
            self._add(whose, frame)
            return
        if not self.symptoms:
            self._note(line)
        if len(self.symptoms) < _MOST:
            self.symptoms += self._found(line, whose)

    def _add(self, whose: str, frame: stack.Frame) -> None:
        if whose in self._stacks or len(self._stacks) < _MOST_STREAMS:
            frames = self._stacks.setdefault(whose, [])
            if len(frames) < _MOST_FRAMES:
                frames.append(frame)

    def _note(self, line: str) -> None:
        usage = stack.usage_in(line)
        if usage is not None:
            self.label = usage.label or self.label
            self.allocated = usage.allocated or self.allocated

    def _found(self, line: str, whose: str) -> Iterator[Symptom]:
        found = messages.found_in(line)
        if found is None:
            return
        kind, figures = found
        frames = self._stacks.get(whose) or []
        phase, place = stack.phase_of(frames)
        if kind is Kind.GPU_UNKNOWN and any("pin" in frame.function for frame in frames):
            kind = Kind.PINNING
        if whose and figures.get("rank") is None:
            figures["rank"] = int(whose)
        yield Symptom(
            kind=kind,
            line=self.number,
            text=line.strip(),
            phase=phase or self._phase_before(),
            place=place or (self.label if not phase else ""),
            is_from_stack=phase is not None,
            **figures,
        )

    def _phase_before(self) -> Phase | None:
        return stack.phase_after(self.label) if self.label else None
