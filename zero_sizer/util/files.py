"""Files that others wrote, read within bounds; and files of ours, written whole or not at all."""

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError

# What other files name is a file's bytes, not what a pipe or a device would send for ever.
_NOT_BLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_NAME = getattr(os, "O_TMPFILE", 0)


def existing(name: str | Path) -> Path | None:
    """The path that ``name`` is, None where nothing is there; a name need not be a path at all."""
    try:
        path = Path(name).expanduser()
        return path if str(name) and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, no such user
        return None


def read_bytes(path: str | Path, most: int, kind: str, *, where: str = "") -> bytes:
    """The whole of a regular file.

    Args:
        path: its name.
        most: bytes it may have.
        kind: what it should be, e.g. ``a hostfile``.
        where: what errors name; the path where not given.

    Raises:
        InputError: it cannot be read, is a folder, pipe or device, or is larger.
    """
    where = where or str(path)
    with _opened(path, kind, where) as descriptor:
        return _read(descriptor, most, kind, where)


def read_part(path: str | Path, offset: int, most: int, kind: str) -> tuple[bytes, int]:
    """Up to ``most`` bytes from ``offset`` on, and the size of the whole file.

    Raises:
        InputError: it cannot be read, or is a folder, pipe or device.
    """
    with _opened(path, kind, str(path)) as descriptor:
        os.lseek(descriptor, offset, os.SEEK_SET)
        parts = []
        while most > 0 and (part := os.read(descriptor, min(most, 2**24))):
            parts.append(part)
            most -= len(part)
        return b"".join(parts), os.fstat(descriptor).st_size


def read_json(path: str | Path, most: int, kind: str, *, constants: bool = False) -> Any:
    """Reads a JSON file; NaN and Infinity, which are no JSON, only where ``constants``.

    Raises:
        InputError: as ``read_bytes``, or no JSON.
    """
    where = str(path)
    raw = read_bytes(path, most, kind)
    try:
        return json.loads(
            raw.decode("utf-8-sig"), parse_constant=float if constants else _no_constant
        )
    except json.JSONDecodeError as error:
        raise InputError(f"broken JSON: {error.msg}", where=f"{where}:{error.lineno}") from None
    except UnicodeDecodeError:
        raise InputError("is not a text file", where=where) from None
    except RecursionError:
        raise InputError("is nested too deeply", where=where) from None
    except ValueError as error:  # a number of thousands of digits, NaN
        raise InputError(f"cannot be parsed: {error}", where=where) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@contextlib.contextmanager
def _opened(path: str | Path, kind: str, where: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | _NOT_BLOCKING)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"cannot be read: {reason}", where=where) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"is a folder, not {kind}", where=where)
        if not stat.S_ISREG(mode):
            raise InputError(
                "is a pipe or a device, which is not read",
                remedy="write what it gives to a file",
                where=where,
            )
        yield descriptor
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where) from None
    finally:
        os.close(descriptor)


def _read(descriptor: int, most: int, kind: str, where: str) -> bytes:
    if os.fstat(descriptor).st_size > most:
        raise _too_large(most, kind, where)
    parts, left = [], most + 1  # its size may be 0 (/proc) or grow
    while left > 0 and (part := os.read(descriptor, min(left, 2**24))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise _too_large(most, kind, where)
    return b"".join(parts)


def _too_large(most: int, kind: str, where: str) -> InputError:
    size = f"{most >> 20} MiB" if most >= 2**20 else f"{most >> 10} KiB"
    return InputError(f"is larger than {size}: not {kind}", where=where)


def require_writable(path: str | None, flag: str) -> None:
    """Refuses, before any work, a file that could not be written after it.

    Raises:
        InputError: a folder, or in a folder that is not there or that is not ours to write in.
    """
    if path is None:
        return
    try:
        if "\0" in path:
            raise ValueError
        target = Path(path)
        is_there, folder = target.exists(), target.parent
        if target.is_dir():
            raise InputError(f"{path} is a folder", remedy="name a file in it", where=flag)
        if not folder.is_dir():
            raise InputError(f"no folder {str(folder)!r}", remedy="make it first", where=flag)
    except (OSError, ValueError) as error:  # too long, or a NUL in it
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"cannot be written: {reason}", where=flag) from None
    writes_into = target if is_there and not target.is_file() else folder
    for place in {target, writes_into} if is_there else {writes_into}:
        if not os.access(place, os.W_OK):
            raise InputError(f"{path} cannot be written: permission denied", where=flag)


def write(path: str | Path, parts: Iterable[bytes]) -> None:
    """Write a file so that whoever looks finds all of it or what was there before.

    Where the system can, the file has no name until it is whole, so that not even a kill leaves
    a part of it.

    Raises:
        InputError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():  # /dev/stdout and the like
            with target.open("wb") as file:
                file.writelines(parts)
            return
        partial = target.with_name(f".{target.name[:200]}.{os.getpid()}")
        _write_new(partial, parts)
        partial.replace(target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"cannot be written: {reason}", where=str(path)) from None


def write_text(path: str | Path, text: str) -> None:
    """Writes text in UTF-8; half a character, which a file may name, as its escape."""
    write(path, [text.encode("utf-8", "backslashreplace")])


def _write_new(path: Path, parts: Iterable[bytes]) -> None:
    """A new file, which gets its name when it is whole."""
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        descriptor = os.open(path.parent, os.O_WRONLY | _NO_NAME, 0o666) if _NO_NAME else -1
    except OSError:  # not on this file system
        descriptor = -1
    try:
        with path.open("xb") if descriptor < 0 else os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            if descriptor >= 0:  # with a folder, Python follows the link to what it stands for
                os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=folder)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(folder)
