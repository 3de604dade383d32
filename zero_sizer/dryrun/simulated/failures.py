"""Errors of a user's script in one line: where, and why."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.engine_errors import remedy_of
from zero_sizer.errors import ZeroSizerError

_OWN = str(Path(__file__).resolve().parents[2])
_LIBRARIES = tuple(
    {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib")}
)
_SITE = ("site-packages", "dist-packages")
_MOST_CAUSES = 4
_MOST_CHARACTERS = 500
_OFFLINE = ("_OFFLINE", "offline mode", "has no network", "huggingface.co")
_FETCHES_NOTHING = (
    "a simulated run fetches nothing: download it first, or name a folder of this machine"
)


def reply(error: BaseException, *, message: str = "") -> dict[str, Any]:
    """The child's reply: in one line what went wrong and why, and the user's own line of code."""
    chain = list(_chain(error))
    innermost = next((line for line in map(_users_line, reversed(chain)) if line), "")
    first, *causes = chain
    text = _said(first)
    for cause in causes[:_MOST_CAUSES]:
        line = _users_line(cause)
        where = f" ({line})" if line and line != innermost else ""
        text += f"; caused by {_said(cause)}{where}"
    remedy = getattr(first, "remedy", "") or remedy_of(text)
    if not remedy and any(word in text for word in _OFFLINE):
        remedy = _FETCHES_NOTHING
    where = innermost or getattr(first, "where", "") or _librarys_line(chain[-1])
    return replies.failure(error, message=message or text, where=where, remedy=remedy)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, what caused that."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)


def _said(error: BaseException) -> str:
    if isinstance(error, ZeroSizerError):
        return error.message
    message = " ".join(str(error).split())[:_MOST_CHARACTERS]
    if not message:
        return type(error).__name__ + _failed_at(error)
    return f"{type(error).__name__}: {message}"


def _failed_at(error: BaseException) -> str:
    """The statement that raised an error without a text, as bare assertions are, and its place."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].line:
        return ""
    return (
        f": {' '.join((frames[-1].line or '').split())[:_MOST_CHARACTERS]} ({_place(frames[-1])})"
    )


def _place(frame: traceback.FrameSummary) -> str:
    """``file:line`` of a frame, from the folder of packages on."""
    parts = Path(frame.filename).parts
    inside = next((i + 1 for i, part in enumerate(parts) if part in _SITE), None)
    where = _short(frame.filename) if inside is None else "/".join(parts[inside:])
    return f"{where}:{frame.lineno}"


def _librarys_line(error: BaseException) -> str:
    """``file:line`` of the innermost frame that is not ours, of a module that a package brings."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        path = os.path.realpath(frame.filename)
        if not frame.filename.startswith("<") and not path.startswith(_OWN + os.sep):
            return _place(frame)
    return ""


def _users_line(error: BaseException) -> str:
    """``file:line`` of the innermost frame in the user's own code.

    That is the folder of the script and the one it runs in, or else what is no library.
    """
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    homes = tuple(os.path.realpath(home) + os.sep for home in (sys.path[0] or ".", "."))
    near = [frame for frame in frames if os.path.realpath(frame.filename).startswith(homes)]
    for frame in reversed(near or frames):
        return f"{_short(frame.filename)}:{frame.lineno}"
    return ""


def _is_users(filename: str) -> bool:
    if filename.startswith("<") or any(part in _SITE for part in Path(filename).parts):
        return False
    path = os.path.realpath(filename)
    return not path.startswith(_OWN + os.sep) and not any(
        path.startswith(library + os.sep) for library in _LIBRARIES
    )


def _short(filename: str) -> str:
    """Relative to here where that is shorter."""
    relative = os.path.relpath(filename)
    return relative if len(relative) < len(filename) else filename
