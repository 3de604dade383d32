"""Starting a simulated rank in a process of its own, and reading what it found."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError, WitnessError
from zero_sizer.witnesses.recording import Recording, from_json
from zero_sizer.witnesses.simulated.request import Request

_ERRORS = {"InputError": InputError, "UnsupportedError": UnsupportedError}
_PROGRESS = "@progress "

Progress = Callable[[int, int, str], None]


def run_request(request: Request, *, progress: Progress | None = None) -> Recording:
    """Runs one rank; the child's answer.

    Args:
        request: what to run.
        progress: called with (phases done, phases in all, phase that ended).

    Raises:
        WitnessError: the engine failed; the message is DeepSpeed's.
        InputError, UnsupportedError: the model or an option cannot be run.
    """
    return from_json(answer(request, progress=progress))


def answer(request: Request, *, progress: Progress | None = None) -> dict[str, Any]:
    """The child's JSON: a recording and, where asked for, its ``events``."""
    with tempfile.TemporaryDirectory(prefix="zero-sizer-") as folder:
        question, reply = Path(folder, "request.json"), Path(folder, "recording.json")
        question.write_text(request.to_json(), encoding="utf-8")
        code, noise = _spawn(question, reply, request, progress)
        if not reply.exists():
            raise WitnessError(f"the simulated run died (exit {code}): {_last_line(noise)}")
        found: dict[str, Any] = json.loads(reply.read_text(encoding="utf-8"))
    error = found.get("error")
    if error is not None:
        raise _ERRORS.get(error["kind"], WitnessError)(error["message"])
    return found


def _spawn(
    question: Path, reply: Path, request: Request, progress: Progress | None
) -> tuple[int, list[str]]:
    command = [sys.executable, "-m", "zero_sizer.witnesses.simulated.child"]
    total = 1 + 3 * request.steps * request.grad_accum
    noise: list[str] = []
    with subprocess.Popen(
        [*command, str(question), str(reply)], stderr=subprocess.PIPE, text=True
    ) as child:
        for line in child.stderr or ():
            if not line.startswith(_PROGRESS):
                noise.append(line)
            elif progress is not None:
                event = json.loads(line.removeprefix(_PROGRESS))
                progress(event["done"], total, event["phase"])
    return child.returncode, noise


def _last_line(noise: list[str]) -> str:
    return next((line.strip() for line in reversed(noise) if line.strip()), "it said nothing")
