"""Replies of a child to its parent: a JSON file, whole or not there, and checked all the same."""

import json
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zero_sizer.dryrun.engine_errors import Raised, engine_error, raised_by_deepspeed
from zero_sizer.dryrun.recording import RankRecord, Recording, from_json, rank_from_json
from zero_sizer.errors import InputError, UnsupportedError, WitnessError, ZeroSizerError
from zero_sizer.util.files import read_json, write_text

_MAX_BYTES = 2**31  # a trace of every allocation is in it
_KINDS: dict[str, type[ZeroSizerError]] = {
    "InputError": InputError,
    "UnsupportedError": UnsupportedError,
}
_PROGRESS = "@progress "

Report = Callable[[int, str], None]
"""Is called with (phases done, the last one) in a child."""
Progress = Callable[[int, int, str], None]
"""Is called with (phases done, phases in all, the last one) in its parent."""


def failure(error: BaseException, *, message: str = "", **more: str) -> dict[str, Any]:
    """The reply of a run that ended with an error.

    Args:
        error: whatever the engine, torch or the user's model raised.
        message: one line instead of the error's own.
        more: ``where`` and ``remedy``, where the child knows more than the error.
    """
    own = isinstance(error, ZeroSizerError)
    text = " ".join(str(error).split()) or "no message"
    kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "")
    raised = None if own else raised_by_deepspeed(error)
    found = {
        "kind": kind or "WitnessError",
        **({"raised": raised} if raised else {}),
        "message": message or (text if own else f"{type(error).__name__}: {text}"),
        "trace": "".join(traceback.format_exception(error)),
    }
    return {"error": {**found, **more}}


def error_in(reply: Mapping[str, Any], config: Mapping[str, Any]) -> ZeroSizerError | None:
    """The error that a reply tells of; the engine's with the keys of ``config`` that it names."""
    if "error" not in reply:
        return None
    error = reply["error"]
    kind = _KINDS.get(error["kind"])
    raised = Raised(*error["raised"]) if "raised" in error else None
    if kind is not None or (raised is None and "remedy" in error):
        named = {name: error[name] for name in ("remedy", "where") if name in error}
        return (kind or WitnessError)(error["message"], **named)
    return engine_error(error["message"], config, where=error.get("where", ""), raised=raised)


def progress_line(done: int, phase: str) -> str:
    """One line of a child's standard error: so many phases are done, this one last."""
    return _PROGRESS + json.dumps({"done": done, "phase": phase}) + "\n"


def progress_in(line: str) -> tuple[int, str] | None:
    """(Phases done, the last one) where a line says so."""
    if not line.startswith(_PROGRESS):
        return None
    event = json.loads(line.removeprefix(_PROGRESS))
    return event["done"], event["phase"]


def report_to(path: Path) -> Report:
    """Progress of a child whose output is kept in a log: lines of a file beside it."""

    def report(done: int, phase: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(progress_line(done, phase))

    return report


def following(path: Path, total: int, progress: Progress) -> Callable[[], None]:
    """Passes on, each time it is called, what ``report_to`` has written since the last time.

    Args:
        path: the file, which need not be there yet.
        total: phases in all.
        progress: is told.
    """
    seen = 0

    def look() -> None:
        nonlocal seen
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(seen)
            whole = file.read().rpartition(b"\n")
        for line in whole[0].decode().splitlines():
            event = progress_in(line)
            if event is not None:
                progress(event[0], total, event[1])
        seen += len(whole[0]) + len(whole[1])

    return look


def write(path: Path, reply: Mapping[str, Any]) -> None:
    """Write a reply; it has its name when all of it is there."""
    write_text(path, json.dumps(reply) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A reply.

    Raises:
        WitnessError: it is none.
    """
    try:
        found = read_json(path, _MAX_BYTES, "a reply")
    except InputError as error:
        raise WitnessError(f"the dry run's reply {error.message}") from None
    if not isinstance(found, dict):
        raise WitnessError("the dry run's reply is no JSON object")
    return found


def recording(reply: Mapping[str, Any]) -> Recording:
    """The recording in a reply.

    Raises:
        WitnessError: it is none.
    """
    try:
        return from_json(reply)
    except ValueError as error:
        raise WitnessError(f"the dry run's reply is no recording: {error}") from None


def rank(reply: Mapping[str, Any]) -> RankRecord:
    """One rank's record in a reply.

    Raises:
        WitnessError: it is none.
    """
    try:
        return rank_from_json(reply)
    except ValueError as error:
        raise WitnessError(f"the dry run's reply is no recording: {error}") from None
