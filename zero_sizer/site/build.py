"""Files of the site, and how they are written."""

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from zero_sizer.errors import InputError
from zero_sizer.site import engine, form, pyodide
from zero_sizer.util.files import write
from zero_sizer.version import __version__

MARK = "zero-sizer-site.json"
"""File by which a folder is known to be such a site, and may be written over."""

_STATIC = ("help.html", "page.js", "question.js", "worker.js", "site.css", "icon.svg")


def site(runtime: Mapping[str, bytes]) -> dict[str, bytes]:
    """Name -> content of every file.

    Args:
        runtime: Pyodide's, by name.

    Raises:
        InputError: a library is not installed.
    """
    packed = engine.archive()
    found = {f"pyodide/{name}": content for name, content in runtime.items()}
    found["engine.zip"] = packed
    found |= {name: _data(name) for name in _STATIC}
    found["answer.css"] = files("zero_sizer.report").joinpath("data", "answer.css").read_bytes()
    found["index.html"] = _index().encode()
    about = {
        "zero_sizer": __version__,
        "pyodide": pyodide.VERSION,
        "engine_sha256": sha256(packed).hexdigest(),
    }
    return {**found, MARK: json.dumps(about, indent=1).encode()}


def require_free(folder: str, *, force: bool) -> None:
    """Refuses, before any work, a folder that holds something else.

    Raises:
        InputError: it does, or it is a file.
    """
    path = Path(folder)
    try:
        if path.is_dir() and not (path / MARK).is_file() and any(path.iterdir()) and not force:
            raise InputError(
                f"{folder} is not empty, and no site of zero-sizer's",
                remedy="name another folder, or add --force",
                where="--output",
            )
        if path.exists() and not path.is_dir():
            raise InputError(f"{folder} is a file", remedy="name a folder", where="--output")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"{folder} cannot be read: {reason}", where="--output") from None


def write_site(folder: str, parts: Mapping[str, bytes]) -> None:
    """Write the files.

    Raises:
        InputError: one of them cannot be written.
    """
    root = Path(folder)
    for name, content in parts.items():
        target = root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot be made: {error.strerror}", where=str(target.parent)
            ) from None
        write(target, [content])


def _data(name: str) -> bytes:
    return files("zero_sizer.site").joinpath("data", name).read_bytes()


def _index() -> str:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise InputError(
            f"the page needs {error.name}", remedy="pip install 'zero-sizer[report]'", where="page"
        ) from None
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_data("index.html").decode()).render(
        first=form.first(), others=list(form.others()), version=__version__
    )
