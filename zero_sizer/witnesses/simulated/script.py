"""An unchanged training script as rank r of N, in a process of its own.

``python -m zero_sizer.witnesses.simulated.script QUESTION.json REPLY.json`` is the child;
``run_script`` starts it.
"""

import contextlib
import json
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, WitnessError, ZeroSizerError
from zero_sizer.witnesses.recording import Recording, from_json


@dataclass(frozen=True, kw_only=True)
class ScriptRequest:
    """A script and the machines to run it on.

    Attributes:
        command: the script's path and its arguments.
        nodes, gpus_per_node, gpu, host_memory, rank, steps: as ``simulate`` takes them.
    """

    command: Sequence[str]
    nodes: int = 1
    gpus_per_node: int = 1
    gpu: str | None = None
    host_memory: int | None = None
    rank: int = 0
    steps: int | None = 2


def run_script(request: ScriptRequest) -> Recording:
    """Runs the script until its optimizer steps are done.

    Raises:
        InputError: there is no such script.
        WitnessError: the script failed, or never trained.
    """
    if not request.command or not Path(request.command[0]).is_file():
        raise InputError(f"no script {' '.join(request.command)!r}")
    with tempfile.TemporaryDirectory(prefix="zero-sizer-script-") as folder:
        question, reply = Path(folder, "question.json"), Path(folder, "reply.json")
        question.write_text(json.dumps(asdict(request)), encoding="utf-8")
        module = "zero_sizer.witnesses.simulated.script"
        done = subprocess.run(
            [sys.executable, "-m", module, str(question), str(reply)],
            stdout=sys.stderr,
            check=False,
        )
        if not reply.exists():
            raise WitnessError(f"the script's process died (exit {done.returncode})")
        found: dict[str, Any] = json.loads(reply.read_text(encoding="utf-8"))
    if "error" in found:
        raise WitnessError(found["error"])
    return from_json(found)


def main(question_path: str, reply_path: str) -> int:
    """The child: runs the script inside ``simulate``."""
    fields = json.loads(Path(question_path).read_text(encoding="utf-8"))
    command = fields.pop("command")
    try:
        reply = _simulate(command, fields)
    except ZeroSizerError as error:
        reply = {"error": str(error)}
    except (Exception, SystemExit) as error:  # the user's script may do anything
        reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    Path(reply_path).write_text(json.dumps(reply), encoding="utf-8")
    return 3 if "error" in reply else 0


def _simulate(command: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    from zero_sizer.witnesses.simulated import peers, quiet
    from zero_sizer.witnesses.simulated.session import simulate

    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).resolve().parent))
    with (
        peers.environment(quiet.VARIABLES),
        simulate(**fields) as session,
        quiet.weightless(),
        contextlib.suppress(_CleanExitError),  # sys.exit(0) is a script's normal end
    ):
        _run(command[0])
    recording = session.recording().to_json()
    if not recording["phases"]:
        raise WitnessError("the script ended without a DeepSpeed engine's forward")
    return recording


class _CleanExitError(Exception):
    """``sys.exit(0)`` or ``sys.exit()``."""


def _run(path: str) -> None:
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise
        raise _CleanExitError from None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
