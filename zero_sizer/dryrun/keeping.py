"""A folder and processes that end with this process, however it ends (``keeper.py``)."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from zero_sizer.errors import WitnessError

_KEEPER = Path(__file__).with_name("keeper.py")


class Keeper:
    """The asker's side of one keeper.

    Attributes:
        folder: an empty folder, which is gone when the keeper is.
        noise: what the child writes, where it was asked for as a pipe.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.folder = Path(self._answer(None)["folder"])

    @property
    def noise(self) -> IO[str]:
        """Lines of the child, to their end."""
        return _open(self._process.stderr)

    def start(
        self, command: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] = {}
    ) -> None:
        """Start a process.

        Args:
            command: what to run.
            log: file for its output; where it is None, that goes to ``noise``.
            env: set on top of this process' environment.
        """
        request = {"command": list(command), "log": str(log or ""), "env": dict(env)}
        questions = _open(self._process.stdin)
        questions.write(json.dumps(request) + "\n")
        questions.flush()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code of what was started.

        Raises:
            subprocess.TimeoutExpired: it takes longer.
        """
        return int(self._answer(timeout)["code"])

    def _answer(self, timeout: float | None) -> Any:
        answers = _open(self._process.stdout)
        if timeout is not None and not select.select([answers], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("the dry run", timeout)
        line = answers.readline()
        if not line:
            raise WitnessError("the process that watches over the dry run ended")
        return json.loads(line)


def _open(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the keeper has no such pipe")
    return stream


@contextlib.contextmanager
def kept(kind: str, *, noise: int | None = subprocess.DEVNULL) -> Iterator[Keeper]:
    """A keeper; when the block is left, or this process gone, so is all that it has.

    Args:
        kind: part of the folder's name.
        noise: where a child without a log writes: ``subprocess.PIPE``, or None for standard error.
    """
    with _terminable():
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER), f"zero-sizer-{kind}-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            yield Keeper(process)
        finally:
            with contextlib.suppress(OSError):
                _open(process.stdin).close()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that all is stopped before this process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
