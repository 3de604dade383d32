"""The engine as one archive: this package and its libraries, without compiled parts."""

import io
import re
import zipfile
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from zero_sizer.errors import InputError

OWN = "zero_sizer"
LIBRARIES = ("PyYAML", "hjson", "Jinja2", "pygal")
"""Distributions that the engine imports, beside what they require; rich draws on terminals only."""

_MODULES = {"pyyaml": "yaml"}  # of distributions whose module is called otherwise
_TAKEN = {".py", ".json", ".html", ".css"}
_UNUSED = (
    "site",
    "dryrun",
    "simulator",
    "tracing",
    "integrations",
)  # what cannot run without torch, and this
_UNUSED_OF_LIBRARIES = ("test", "tests")
_DAY = (1980, 1, 1, 0, 0, 0)  # so that equal files make equal archives


def archive() -> bytes:
    """Bytes of the ZIP.

    Raises:
        InputError: a library is not installed.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, path in sorted(_members()):
            packed.writestr(zipfile.ZipInfo(name, _DAY), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def libraries() -> dict[str, str]:
    """Module -> distribution of the libraries and of all that they require here."""
    found: dict[str, str] = {}
    waiting = list(LIBRARIES)
    for name in waiting:  # which grows
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            if name not in LIBRARIES:  # what other Pythons and other systems require
                continue
            required = []
        if found.setdefault(_module(name), name) is name:
            waiting += [one for one in map(_required, required) if one]
    return found


def _required(line: str) -> str:
    """Name of a distribution in a line of ``Requires-Dist``; empty of an extra's."""
    return "" if "extra ==" in line else re.split(r"[^\w.-]", line, maxsplit=1)[0]


def _members() -> Iterator[tuple[str, Path]]:
    yield from _files(OWN, _UNUSED)
    for module, name in libraries().items():
        yield from _files(module, _UNUSED_OF_LIBRARIES)
        yield from _licences(module, name)


def _files(module: str, unused: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Files of a package that the engine may read; of folders ``unused`` it needs none."""
    root = _root(module)
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if path.suffix in _TAKEN and "__pycache__" not in parts and parts[0] not in unused:
            yield "/".join((module, *parts)), path


def _module(name: str) -> str:
    """Name of the module of a distribution."""
    plain = re.sub(r"[-_.]+", "_", name).lower()
    return _MODULES.get(plain, plain)


def _root(module: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise InputError(
            f"the page needs {module}", remedy="pip install 'zero-sizer[report]'", where="page"
        )
    return Path(found.origin).parent


def _licences(module: str, name: str) -> Iterator[tuple[str, Path]]:
    """Files of a library that say under which terms it may be passed on."""
    try:
        listed = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in listed:
        is_licence = any(word in file.name.lower() for word in ("licen", "copying"))
        if is_licence and ".dist-info" in str(file):
            yield f"licences/{module}/{file.name}", Path(str(file.locate()))
