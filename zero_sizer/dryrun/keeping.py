"""A folder and processes that end with this process, however it ends (``keeper.py``)."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from zero_sizer.errors import InputError, WitnessError
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import shown

SAFE_PATH = "PYTHONSAFEPATH"
_KEEPER = Path(__file__).with_name("keeper.py")
_PLAIN = re.compile(r"(?!-)[\w@%+=:,./-]+")
_UNKNOWN = Path()
_CONNECT = 60.0  # seconds for a connection to be made
_LOOK = 0.2  # seconds between looks at what a run has done
_PATIENCE = 5.0  # for a connection that was closed to end


def importable(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables under which Python imports what this process does, and nothing of its folder.

    Where packages are installed Python looks by itself; in front, they would hide its own modules.
    """
    package_root = str(Path(__file__).parents[2])
    is_installed = package_root in {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    paths = [
        "" if is_installed else package_root,
        environment.get("PYTHONPATH", os.environ.get("PYTHONPATH", "")),
    ]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), SAFE_PATH: "1"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a keeper runs.

    Attributes:
        host: its name; empty is this machine.
        through: words in front of the host that run a command there, e.g. ``ssh``.
        silence: seconds without a sign of each other after which both sides count as gone.
    """

    host: str = ""
    through: tuple[str, ...] = ()
    silence: float = 30.0

    def command(self, prefix: str) -> list[str]:
        """Words that start the keeper there.

        Raises:
            InputError: a word that a shell on the way would read otherwise.
        """
        words = [sys.executable, "-I", "-S", str(_KEEPER), prefix]
        if not self.host:
            return words
        words.append(f"{self.silence:g}")
        for word in (self.host, *words):
            if not _PLAIN.fullmatch(word) and word not in ("-I", "-S"):
                raise InputError(f"{shown(word)} cannot be passed on to another host", where="host")
        return [*self.through, self.host, *words]


HERE = Place()


class Keeper:
    """The asker's side of one keeper.

    Attributes:
        place: where it runs.
        folder: an empty folder there, which is gone when the keeper is; known once it was greeted.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", place: Place) -> None:
        self.place = place
        self._process = process
        self._answers: deque[dict[str, Any]] = deque()
        self._held = b""
        self._heard = self._beaten = time.monotonic()
        os.set_blocking(_open(process.stdin).fileno(), False)
        self.folder = _UNKNOWN

    @property
    def noise(self) -> Iterator[str]:
        """Lines of the child, to their end, where it writes into a pipe."""
        for line in _open(self._process.stderr):
            yield line.decode("utf-8", errors="replace")

    def start(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        env: Mapping[str, str] = {},
        cwd: str = "",
    ) -> None:
        """Start a process.

        Args:
            command: what to run.
            log: file for its output; where it is None, that goes to ``noise``.
            env: set on top of the keeper's environment, which here is this process'.
            cwd: folder to be in; the keeper's own where empty.
        """
        about = {"command": list(command), "log": str(log or ""), "env": dict(env), "cwd": cwd}
        self._ask("start", **about)

    def run_module(self, module: str, *arguments: str, log: Path | None = None) -> None:
        """Start a module of this package, which imports nothing from the folder it is started in.

        Args:
            module: its whole name.
            arguments: its own.
            log: as ``start`` takes it.
        """
        command = [sys.executable, "-m", module, *arguments]
        self.start(command, log=log, env=importable(os.environ))

    def put(self, name: str, text: str) -> None:
        """Write a file into the folder."""
        self._ask("put", name=name, text=text)
        self._answer("put")

    def get(self, *patterns: str) -> list[dict[str, Any]]:
        """Files of the folder that match: ``name``, ``text`` and ``changed``, in nanoseconds."""
        self._ask("get", patterns=patterns)
        found: list[dict[str, Any]] = self._answer("files")["files"]
        return found

    def address(self) -> tuple[str, int]:
        """The host's first address and a free port."""
        self._ask("address")
        address, port = self._answer("address")["address"]
        return address, port

    def wait(
        self, timeout: float | None = None, meanwhile: Callable[[], None] | None = None
    ) -> int:
        """The exit code of what was started.

        Args:
            timeout: seconds.
            meanwhile: called a few times a second.

        Raises:
            subprocess.TimeoutExpired: it takes longer.
        """
        return int(next(answers([self], "code", timeout, meanwhile))[1]["code"])

    def take(self, key: str) -> dict[str, Any] | None:
        """The answer with this key, where it is here already.

        Raises:
            WitnessError: the keeper could not do what it was asked.
        """
        for found in self._answers:
            if "error" in found:
                raise WitnessError(f"{self._name}: {found['error']}")
            if key in found:
                self._answers.remove(found)
                return found
        return None

    def hang_up(self) -> None:
        """Tell the keeper to end, and do not wait for it."""
        with contextlib.suppress(OSError):
            _open(self._process.stdin).close()

    def _ask(self, what: str, **about: Any) -> None:
        left = json.dumps({"do": what, **about}).encode() + b"\n"
        questions = _open(self._process.stdin).fileno()
        while left:
            if not select.select([], [questions], [], self.place.silence)[1]:
                raise self._lost("takes nothing any more")
            try:
                left = left[os.write(questions, left[: select.PIPE_BUF]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._lost("ended") from None

    def _answer(self, key: str, timeout: float | None = None) -> dict[str, Any]:
        return next(answers([self], key, timeout))[1]

    def receive(self) -> None:
        """Take in every answer that has come.

        Raises:
            WitnessError: the keeper is gone.
        """
        chunk = os.read(_open(self._process.stdout).fileno(), 2**20)
        if not chunk:
            raise self._lost("ended")
        self._heard = time.monotonic()
        *whole, self._held = (self._held + chunk).split(b"\n")
        self._answers.extend(found for line in whole if "beat" not in (found := json.loads(line)))

    def fileno(self) -> int:
        """Descriptor that ``select`` waits for."""
        return _open(self._process.stdout).fileno()

    def beat(self) -> None:
        """A sign of life to a keeper on another host, and a look whether it gave one.

        Raises:
            WitnessError: it has been silent for too long.
        """
        now = time.monotonic()
        if not self.place.host:
            return
        allowed = (
            self.place.silence if self.folder != _UNKNOWN else max(_CONNECT, self.place.silence)
        )
        if now - self._heard > allowed:
            self._process.kill()
            raise self._lost(f"was silent for {allowed:g} s")
        if now - self._beaten >= self.place.silence / 10:
            self._beaten = now
            self._ask("beat")

    @property
    def _name(self) -> str:
        return f"host {self.place.host}" if self.place.host else "the dry run"

    def _lost(self, how: str) -> WitnessError:
        if not self.place.host:
            return WitnessError("the process that watches over the dry run ended")
        self.hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        said = b""
        if self._process.stderr is not None:  # may be held open by a connection that is shared
            os.set_blocking(self._process.stderr.fileno(), False)
            said = self._process.stderr.read() or b""
        last = said.decode("utf-8", errors="replace").strip().rpartition("\n")[2]
        why = f"its connection {how}" + (f": {last}" if last else "")
        return WitnessError(f"host {self.place.host} was lost: {why}")


def greet(keepers: Sequence[Keeper]) -> None:
    """Wait until all of them are there.

    Raises:
        WitnessError: one of them cannot be reached.
    """
    for keeper, found in answers(keepers, "folder"):
        keeper.folder = Path(found["folder"])


def answers(
    keepers: Sequence[Keeper],
    key: str,
    timeout: float | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Iterator[tuple[Keeper, dict[str, Any]]]:
    """Each keeper's answer with this key, as they come; all of them are beaten meanwhile.

    Args:
        keepers: who was asked.
        key: what their answer has.
        timeout: seconds.
        meanwhile: called a few times a second.

    Raises:
        subprocess.TimeoutExpired: they take longer.
        WitnessError: one of them is gone, or could not do it.
    """
    until = None if timeout is None else time.monotonic() + timeout
    waiting = list(keepers)
    while True:
        if meanwhile is not None:
            meanwhile()
        for keeper in list(waiting):
            found = keeper.take(key)
            if found is not None:
                waiting.remove(keeper)
                yield keeper, found
        left = None if until is None else until - time.monotonic()
        if not waiting:
            return
        if left is not None and left <= 0:
            raise subprocess.TimeoutExpired("the dry run", timeout or 0)
        pauses = (left, _LOOK if meanwhile is not None else None)
        _listen(keepers, min((pause for pause in pauses if pause is not None), default=None))


def _listen(keepers: Sequence[Keeper], timeout: float | None) -> None:
    pauses = [keeper.place.silence / 10 for keeper in keepers if keeper.place.host]
    known = [pause for pause in (*pauses, timeout) if pause is not None]
    for keeper in select.select(keepers, [], [], min(known) if known else None)[0]:
        keeper.receive()
    for keeper in keepers:
        keeper.beat()


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the keeper has no such pipe")
    return stream


@contextlib.contextmanager
def kept(
    kind: str, *, noise: int | None = subprocess.DEVNULL, place: Place = HERE
) -> Iterator[Keeper]:
    """A keeper, greeted if it is here; when the block or this process ends, so does all it has.

    Args:
        kind: part of the folder's name.
        noise: where a child without a log writes: ``subprocess.PIPE``, or None for standard error.
        place: where it runs.
    """
    with _terminable():
        process = subprocess.Popen(
            place.command(f"zero-sizer-{kind}-"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            start_new_session=True,
        )
        try:
            keeper = Keeper(process, place)
            if not place.host:
                greet([keeper])
            yield keeper
        finally:
            with contextlib.suppress(OSError):
                _open(process.stdin).close()
            _await_end(process, place)
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def _await_end(process: "subprocess.Popen[bytes]", place: Place) -> None:
    """A keeper here always ends; a connection to a lost host may not."""
    try:
        process.wait(_PATIENCE if place.host else None)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
