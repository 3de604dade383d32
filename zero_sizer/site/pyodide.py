"""Where Pyodide comes from: a folder that is named, or npm, which is asked only on request."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from zero_sizer.errors import InputError
from zero_sizer.util import files

VERSION = "314.0.7"
"""Of the npm package, which this was tested with; its Python is 3.14."""

PARTS = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)
"""Files of the package that a browser loads."""

_PATIENCE = 300  # seconds that npm may take
_MOST = 64 * 2**20  # bytes of one part


def parts_of(folder: str) -> dict[str, bytes]:
    """Name -> content of each file that a browser loads.

    Args:
        folder: the npm package as it is unpacked, or one that has it in ``node_modules``.

    Raises:
        InputError: it is no such folder, or one of another version.
    """
    root = next(
        (path for path in _candidates(Path(folder)) if (path / PARTS[0]).is_file()), Path(folder)
    )
    missing = [name for name in PARTS if not (root / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} is not the npm package pyodide: {', '.join(missing)} not found",
            remedy=f"npm install pyodide@{VERSION}, then --pyodide node_modules/pyodide",
            where="--pyodide",
        )
    found = _version(root / "package.json")
    if found != VERSION:
        raise InputError(
            f"{folder} has Pyodide {found}; the page is made for {VERSION}",
            remedy=f"npm install pyodide@{VERSION}",
            where="--pyodide",
        )
    return {name: files.read_bytes(root / name, _MOST, "a part of Pyodide") for name in PARTS}


def fetched() -> dict[str, bytes]:
    """Files of the package as npm downloads it; nothing of it stays on disk.

    Raises:
        InputError: npm is missing or fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            "npm is not installed",
            remedy="install Node.js, or unpack the npm package pyodide and name it: --pyodide DIR",
            where="--fetch",
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", f"pyodide@{VERSION}"]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(type(error).__name__) from None
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise _failed((done.stderr or done.stdout).strip()[-300:] or "no package came")
        try:
            with tarfile.open(archives[0]) as archive:
                _unpack(archive, Path(folder).resolve())
        except (OSError, tarfile.TarError) as error:
            raise _failed(str(error)) from None
        return parts_of(str(Path(folder) / "package"))


def _unpack(archive: tarfile.TarFile, folder: Path) -> None:
    """Its plain files that lie below the folder; ``filter="data"`` came with Python 3.11.4."""
    for member in archive:
        path = (folder / member.name).resolve()
        content = archive.extractfile(member) if member.isfile() else None
        if content is not None and path.is_relative_to(folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())


def _candidates(folder: Path) -> tuple[Path, ...]:
    return (folder, folder / "node_modules" / "pyodide", folder / "pyodide", folder / "package")


def _version(path: Path) -> str:
    try:
        return str(json.loads(path.read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "of no version that its package.json tells"


def _failed(why: str) -> InputError:
    return InputError(
        f"npm pack pyodide@{VERSION} failed: {why}",
        remedy="get the package elsewhere and name its folder: --pyodide DIR",
        where="--fetch",
    )
