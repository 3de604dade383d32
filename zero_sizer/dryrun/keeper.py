"""The process that owns a dry run's folder and everything that runs in it.

Run by its path, with an isolated Python; the standard library only. It reads what to start from
standard input, one JSON object a line, and tells on standard output what became of it. Standard
input ends when whoever asks is done, or is gone, however that came about: then every process is
killed, the folder removed, and nothing is left. It has a session of its own, so no terminal that
closes and no Ctrl-C can take it along.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_UNHURT = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE")
_PAUSE = 0.01


def main(prefix: str) -> int:
    """Own a new folder until standard input ends."""
    for name in _UNHURT:  # a handler, which children do not inherit as they would an ignored one
        signal.signal(getattr(signal, name), lambda number, frame: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # whatever is left by its parent below becomes ours
    folder = tempfile.mkdtemp(prefix=prefix)
    try:
        _say({"folder": folder})
        for line in iter(sys.stdin.buffer.readline, b""):
            _start(json.loads(line))
    except (OSError, ValueError):  # the asker is gone in the middle of a line
        pass
    finally:
        _end_all()
        _remove(Path(folder))
    return 0


def _start(request: dict[str, Any]) -> None:
    """Start ``command``; its output goes to the file ``log``, else to our standard error."""
    log = open(request["log"], "wb") if request["log"] else None  # noqa: SIM115
    process = subprocess.Popen(
        request["command"],
        stdin=subprocess.DEVNULL,
        stdout=log or sys.stderr,
        stderr=log or sys.stderr,
        env={**os.environ, **request["env"]},
        start_new_session=True,
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    if log is None:  # whoever reads it waits for the last one that can write
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    else:
        log.close()
    threading.Thread(target=_await, args=(process,), daemon=True).start()


def _await(process: "subprocess.Popen[bytes]") -> None:
    code = process.wait()
    with contextlib.suppress(OSError):
        _say({"code": code})


def _say(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


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
    sys.exit(main(sys.argv[1]))
