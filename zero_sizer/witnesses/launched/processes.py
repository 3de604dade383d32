"""Starting the ``deepspeed`` launcher so that nothing it starts can outlive us."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

_GUARD = "ZERO_SIZER_PARENT"
_GUARD_SECONDS = 2.0
_KILL_SECONDS = 10.0  # a killed process ends at once unless the system is in trouble


def launch(
    arguments: list[str], *, ranks: int, folder: Path, timeout: float, env: Mapping[str, str]
) -> int:
    """Run the worker module under the ``deepspeed`` launcher and wait for it.

    Args:
        arguments: of the worker.
        ranks: processes to start on this machine.
        folder: an empty folder for logs: ``launcher.log`` and one log per rank.
        timeout: seconds until everything is stopped.
        env: set on top of this process' environment.

    Returns:
        The launcher's exit code.

    Raises:
        subprocess.TimeoutExpired: it took too long; nothing is left running.
    """
    command = [sys.executable, "-m", "deepspeed.launcher.runner"]
    command += ["--num_gpus", str(ranks), "--master_port", str(_free_port())]
    # A hostfile would make the launcher start ranks on other machines.
    command += ["--hostfile", str(folder / "no-hostfile")]
    command += ["--enable_each_rank_log", str(folder / "ranks")]
    command += ["--module", "zero_sizer.witnesses.launched.worker", *arguments]
    environment = {**os.environ, **_importable(), **env, _GUARD: str(os.getpid())}
    with (folder / "launcher.log").open("wb") as log, _terminable():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            return process.wait(timeout=timeout)
        finally:
            kill_tree(process)


def _importable() -> dict[str, str]:
    """PYTHONPATH under which the ranks import what this process imports."""
    package_root = str(Path(__file__).parents[3])
    paths = [package_root, os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the stack as Ctrl-C does, so that the ranks are stopped."""
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


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """Stop the launcher's session and every descendant that left it, and wait until they ended."""
    strays = descendants(process.pid)
    with contextlib.ExitStack() as stack:
        handles = [handle for pid in strays if (handle := _handle(pid, stack)) is not None]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for handle in handles:
            select.select([handle], [], [], _KILL_SECONDS)  # readable once the process has ended


def _handle(pid: int, stack: contextlib.ExitStack) -> int | None:
    """A file that tells when a process ends; None when it has, or the system has no such file."""
    with contextlib.suppress(OSError, AttributeError):
        handle = os.pidfd_open(pid)
        stack.callback(os.close, handle)
        return handle
    return None


def descendants(pid: int) -> list[int]:
    """Every living process below ``pid``, by /proc; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            # The command in parentheses may hold spaces; the parent is the second field after it.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent() -> None:
    """In a rank: end this process soon after the one that asked for the run is gone."""
    parent = int(os.environ.get(_GUARD, "0"))
    if parent:
        threading.Thread(target=_guard, args=(parent,), daemon=True).start()


def _guard(parent: int) -> None:
    stopped = threading.Event()
    while not stopped.wait(_GUARD_SECONDS):
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os._exit(1)
