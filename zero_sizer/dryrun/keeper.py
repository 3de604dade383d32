"""The process that owns a dry run's folder on one host, and everything that runs in it.

Run by its path, with an isolated Python; the standard library only. It reads what to do from
standard input, one JSON object a line, and answers on standard output. Standard input ends when
whoever asks is done, or is gone, however that came about: then every process is killed, the
folder removed, and nothing is left. On another host nothing may tell that the asker is gone (a
cable pulled): there, a silence of so many seconds is an end too. It has a session of its own, so
no terminal that closes and no Ctrl-C can take it along.
"""

import contextlib
import ctypes
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_UNHURT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE")
_PAUSE = 0.01
_SAYING = threading.Lock()


def main(prefix: str, silence: str = "") -> int:
    """Own a new folder until standard input ends, or says nothing for ``silence`` seconds."""
    for name in _UNHURT:  # a handler, which children do not inherit as they would an ignored one
        signal.signal(getattr(signal, name), lambda number, frame: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # whatever is left by its parent below becomes ours
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    with contextlib.suppress(OSError, ValueError):  # the asker is gone in the middle of a line
        try:
            _say({"folder": str(folder)})
            for line in _lines(float(silence) if silence else None):
                _do(json.loads(line), folder)
        finally:
            _end_all()
            _remove(folder)
    return 0


def _lines(silence: float | None) -> Iterator[bytes]:
    held = b""
    while select.select([0], [], [], silence)[0]:
        chunk = os.read(0, 2**20)
        if not chunk:
            return
        *whole, held = (held + chunk).split(b"\n")
        yield from whole


def _do(request: dict[str, Any], folder: Path) -> None:
    """One request: start, put, get, address, or beat."""
    what = request["do"]
    try:
        if what == "start":
            _start(request)  # its answer is the exit code, when it ends
        elif what == "put":
            path = folder / request["name"]
            path.parent.mkdir(exist_ok=True)
            _say({"put": path.write_text(request["text"], encoding="utf-8")})
        elif what == "get":
            _say({"files": list(_files(folder, request["patterns"]))})
        elif what == "address":
            _say({"address": _address()})
        else:
            _say({"beat": True})
    except (OSError, subprocess.SubprocessError) as error:
        _say({"error": f"{type(error).__name__}: {error}"})


def _files(folder: Path, patterns: list[str]) -> Iterator[dict[str, Any]]:
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        text = path.read_text(encoding="utf-8", errors="replace")
        name = str(path.relative_to(folder))
        yield {"name": name, "text": text, "changed": path.stat().st_mtime_ns}


def _address() -> tuple[str, int]:
    """Address of this host, as DeepSpeed's launcher asks for it, and a port that is free."""
    told = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True)
    with socket.socket() as probe:
        probe.bind(("", 0))
        return next(iter(told.stdout.split()), ""), probe.getsockname()[1]


def _start(request: dict[str, Any]) -> None:
    """Start ``command``; its output goes to the file ``log``, else to our standard error."""
    log = open(request["log"], "wb") if request["log"] else None  # noqa: SIM115
    process = subprocess.Popen(
        request["command"],
        stdin=subprocess.DEVNULL,
        stdout=log or sys.stderr,
        stderr=log or sys.stderr,
        cwd=request["cwd"] or None,
        env={**os.environ, **request["env"]},
        start_new_session=True,
        preexec_fn=functools.partial(_die_with, os.getpid()),
    )
    if log is None:  # whoever reads it waits for the last one that can write
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    else:
        log.close()
    threading.Thread(target=_await, args=(process,), daemon=True).start()


def _die_with(parent: int) -> None:
    """In a child: be killed with its parent, which may be gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _await(process: "subprocess.Popen[bytes]") -> None:
    code = process.wait()
    with contextlib.suppress(OSError):
        _say({"code": code})


def _say(what: dict[str, Any]) -> None:
    left = json.dumps(what).encode() + b"\n"
    with _SAYING:  # an exit code must not come amid a file
        while left:
            left = left[os.write(1, left) :]


def _prctl(option: int, value: int) -> None:
    """Linux's process options; elsewhere the process groups have to do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _end_all() -> None:
    """Kill every process below this one until there is none."""
    while living := descendants(os.getpid()):
        for pid in living:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_PAUSE)


def _remove(folder: Path) -> None:
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE)


def descendants(pid: int) -> list[int]:
    """Every process below ``pid`` that has not ended, by /proc; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    ended = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            # The command in parentheses may hold spaces; state and parent follow it.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            children.setdefault(int(parent), []).append(int(entry.name))
            if state in "ZX":
                ended.add(int(entry.name))
    found, pending = [], [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return [number for number in found if number not in ended]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
