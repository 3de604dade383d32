"""An unchanged training script as rank r of N, in a process of its own.

``python -m zero_sizer.witnesses.simulated.script QUESTION.json REPLY.json`` is the child;
``run_script`` starts it.
"""

import contextlib
import json
import runpy
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError, WitnessError, ZeroSizerError
from zero_sizer.hardware import catalog
from zero_sizer.witnesses import replies
from zero_sizer.witnesses.keeping import kept
from zero_sizer.witnesses.launched.parent import require_packages
from zero_sizer.witnesses.recording import Recording
from zero_sizer.witnesses.simulated.outputs import NOTHING, Outputs

_ERRORS: dict[str, type[ZeroSizerError]] = {
    "InputError": InputError,
    "UnsupportedError": UnsupportedError,
}


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


def run_script(request: ScriptRequest, outputs: Outputs = NOTHING) -> Recording:
    """Runs the script until its optimizer steps are done; what it prints goes to stderr.

    Args:
        request: what to run, where.
        outputs: the trace and snapshot to write.

    Raises:
        InputError: there is no such script, GPU or rank, or a file cannot be written.
        WitnessError: a package is missing, the script failed, or it never trained.
    """
    require_packages()
    outputs.check()
    _check(request)
    found = _ask(request, keep_events=bool(outputs))
    if "error" in found:
        raise _ERRORS.get(found["kind"], WitnessError)(found["error"])
    if outputs:
        outputs.write(found["events"])
    return replies.recording(found)


def _check(request: ScriptRequest) -> None:
    if not request.command or not Path(request.command[0]).is_file():
        raise InputError(f"no script {' '.join(request.command)!r}")
    world_size = request.nodes * request.gpus_per_node
    if not 0 <= request.rank < world_size:
        raise InputError(f"there is no rank {request.rank} among {world_size}")
    if request.gpu is not None:
        catalog.find(request.gpu)


def _ask(request: ScriptRequest, *, keep_events: bool) -> dict[str, Any]:
    with kept("script", noise=None) as keeper:
        question, reply = keeper.folder / "question.json", keeper.folder / "reply.json"
        question.write_text(
            json.dumps({**asdict(request), "keep_events": keep_events}), encoding="utf-8"
        )
        module = "zero_sizer.witnesses.simulated.script"
        keeper.start([sys.executable, "-m", module, str(question), str(reply)])
        code = keeper.wait()
        if not reply.exists():
            raise WitnessError(f"the script's process died (exit {code})")
        return replies.read(reply)


def main(question_path: str, reply_path: str) -> int:
    """The child: runs the script inside ``simulate``."""
    fields = json.loads(Path(question_path).read_text(encoding="utf-8"))
    command = fields.pop("command")
    try:
        reply = _simulate(command, fields)
    except ZeroSizerError as error:
        reply = {"error": str(error), "kind": _kind(error)}
    except SystemExit as error:
        reply = {"error": f"the script ended with exit status {error}", "kind": "WitnessError"}
    except Exception as error:  # the user's script may do anything
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        reply = {"error": message, "kind": "WitnessError"}
    replies.write(Path(reply_path), reply)
    return 3 if "error" in reply else 0


def _kind(error: ZeroSizerError) -> str:
    """The name of the nearest class that the parent knows."""
    return next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "")


def _simulate(command: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    from zero_sizer.witnesses.simulated import peers, quiet
    from zero_sizer.witnesses.simulated.session import simulate

    keep_events = fields.pop("keep_events")
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).resolve().parent))
    with (
        peers.environment(quiet.VARIABLES),
        simulate(**fields) as session,
        quiet.weightless(),
        contextlib.suppress(_CleanExitError),  # sys.exit(0) is a script's normal end
    ):
        if keep_events:
            session.keep_events()
        _run(command[0])
    recording = {**session.recording().to_json(), "events": session.events}
    recording["job"] = {"script": command, "name": Path(command[0]).name}
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
