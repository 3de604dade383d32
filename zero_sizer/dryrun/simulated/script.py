"""An unchanged training script as rank r of N, in a process of its own.

``python -m zero_sizer.dryrun.simulated.script QUESTION.json REPLY.json`` is the child;
``run_script`` starts it.
"""

import contextlib
import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.keeping import SAFE_PATH, importable, kept
from zero_sizer.dryrun.packages import require_packages
from zero_sizer.dryrun.recording import Recording
from zero_sizer.dryrun.simulated.outputs import NOTHING, Outputs
from zero_sizer.dryrun.task import require_rank
from zero_sizer.errors import InputError, WitnessError
from zero_sizer.hardware import catalog
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:
    from zero_sizer.dryrun.simulated.session import Session


@dataclass(frozen=True, kw_only=True)
class ScriptRequest:
    """A script and the machines to run it on.

    Attributes:
        command: the script's path and its arguments.
        module: ``command`` starts with a module's name, as after ``python -m``.
        environment: variables that a launcher would set for it.
        nodes, gpus_per_node, gpu, host_memory, rank, steps: as ``simulate`` takes them.
        generate_tokens: new tokens of every ``generate()``; None refuses it.
    """

    command: Sequence[str]
    module: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    gpus_per_node: int = 1
    gpu: str | None = None
    host_memory: int | None = None
    rank: int = 0
    steps: int | None = 2
    generate_tokens: int | None = None


def run_script(
    request: ScriptRequest, outputs: Outputs = NOTHING, *, debug: bool = False
) -> Recording:
    """Runs the script until its optimizer steps are done; what it prints goes to stderr.

    Args:
        request: what to run, where.
        outputs: the trace and snapshot to write.
        debug: show the whole traceback of an error on stderr.

    Raises:
        InputError: there is no such script, GPU or rank, or a file cannot be written.
        WitnessError: a package is missing, the script failed, or it never trained.
    """
    require_packages()
    outputs.check()
    _check(request)
    found = _ask(request, keep_events=bool(outputs))
    config = found.get("config")
    error = replies.error_in(found, config if isinstance(config, Mapping) else {})
    if error is not None:
        if isinstance(error, WitnessError) and config is not None:
            error.config, error.ranks = config, (request.nodes, request.gpus_per_node)
        if debug:
            sys.stderr.write(found["error"]["trace"])
        raise error
    if outputs:
        outputs.write(found["events"])
    return replies.recording(found)


def _check(request: ScriptRequest) -> None:
    if not request.module and not (request.command and Path(request.command[0]).is_file()):
        raise InputError(f"no script {' '.join(request.command)!r}")
    require_rank(request.rank, request.nodes * request.gpus_per_node)
    if request.gpu is not None:
        catalog.find(request.gpu)


def _ask(request: ScriptRequest, *, keep_events: bool) -> dict[str, Any]:
    with kept("script", noise=None) as keeper:
        question, reply = keeper.folder / "question.json", keeper.folder / "reply.json"
        question.write_text(
            json.dumps({**asdict(request), "keep_events": keep_events}), encoding="utf-8"
        )
        module = "zero_sizer.dryrun.simulated.script"
        keeper.start(
            [sys.executable, "-m", module, str(question), str(reply)],
            env=_environment(request.environment),
        )
        code = keeper.wait()
        if not reply.exists():
            raise WitnessError(f"the script's process died (exit {code})")
        return replies.read(reply)


def _environment(stated: Mapping[str, str]) -> dict[str, str]:
    """This process's variables and the line's; where both say where modules are, both count.

    ``python train.py`` imports nothing from the folder it is said in, if the script is elsewhere.
    """
    paths = [source["PYTHONPATH"] for source in (stated, os.environ) if source.get("PYTHONPATH")]
    found = {**os.environ, **stated}
    return {**found, **importable({"PYTHONPATH": os.pathsep.join(paths)})}


def main(question_path: str, reply_path: str) -> int:
    """The child: runs the script inside ``simulate``."""
    from zero_sizer.dryrun.simulated import failures

    fields = json.loads(Path(question_path).read_text(encoding="utf-8"))
    if SAFE_PATH not in fields.pop("environment"):  # this process has it
        os.environ.pop(SAFE_PATH, None)  # what the script itself starts is its own affair
    command, module = fields.pop("command"), fields.pop("module")
    sessions: list[Session] = []
    try:
        reply = _simulate(command, module, fields, sessions)
    except SystemExit as error:
        reply = failures.reply(error, message=f"the script ended with exit status {error}")
    except Exception as error:  # the user's script may do anything
        reply = failures.reply(error)
    if "error" in reply and sessions:
        reply["config"] = _config_of(sessions[-1])
    replies.write(Path(reply_path), reply)
    return 3 if "error" in reply else 0


def _config_of(session: "Session") -> str | dict[str, Any] | None:
    """File or values of the config that DeepSpeed was given."""
    if isinstance(session.config, Mapping):
        values: dict[str, Any] = json.loads(json.dumps(dict(session.config), default=str))
        return values
    named = isinstance(session.config, str | os.PathLike)
    path = Path(session.config) if named else None
    return None if path is None or not path.is_file() else str(path)


def _simulate(
    command: list[str], module: bool, fields: dict[str, Any], sessions: list["Session"]
) -> dict[str, Any]:
    from zero_sizer.dryrun.simulated.session import simulate
    from zero_sizer.simulator.patches import quiet
    from zero_sizer.util.environment import environment

    keep_events, generate_tokens = fields.pop("keep_events"), fields.pop("generate_tokens")
    sys.argv = list(command)
    # As Python itself: the script's own folder, or the one that ``-m`` is said in.
    sys.path.insert(0, "" if module else str(Path(command[0]).resolve().parent))
    with (
        environment(quiet.VARIABLES),
        simulate(**fields) as session,
        quiet.weightless(session.notes, generate_tokens=generate_tokens),
        contextlib.suppress(_CleanExitError),  # sys.exit(0) is a script's normal end
    ):
        sessions.append(session)
        session.at_first_forward.append(quiet.save_nothing)
        if keep_events:
            session.keep_events()
        _run(command[0], module)
    recording = {**session.recording().to_json(), "events": session.events}
    recording["job"] = {"script": command, "name": Path(command[0]).name}
    if not recording["phases"]:
        made = "ran no forward of its DeepSpeed engine" if session.has_engine else "made no engine"
        raise WitnessError(
            f"the script ended without a DeepSpeed engine's forward: it {made}",
            remedy="" if session.has_engine else quiet.NO_ENGINE,
        )
    return recording


class _CleanExitError(Exception):
    """``sys.exit(0)`` or ``sys.exit()``."""


def _run(name: str, module: bool) -> None:
    try:
        if module:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise
        raise _CleanExitError from None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
