"""The engine as one archive: this package and its libraries, without compiled parts."""

import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from zero_sizer.errors import InputError

OWN = "zero_sizer"
LIBRARIES = {"yaml": "PyYAML", "hjson": "hjson", "jinja2": "Jinja2", "markupsafe": "MarkupSafe"}
"""Module -> distribution of what the engine imports; rich draws on terminals only."""

_TAKEN = {".py", ".json", ".html", ".css"}
_UNUSED = (
    "site",
    "dryrun",
    "simulator",
    "tracing",
    "integrations",
)  # what cannot run without torch, and this
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


def _members() -> Iterator[tuple[str, Path]]:
    for module in (OWN, *LIBRARIES):
        root = _root(module)
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            is_unused = module == OWN and parts[0] in _UNUSED
            if path.suffix in _TAKEN and "__pycache__" not in parts and not is_unused:
                yield "/".join((module, *parts)), path
    for module, name in LIBRARIES.items():
        yield from _licences(module, name)


def _root(module: str) -> Path:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise InputError(
            f"the page needs {LIBRARIES.get(module, module)}",
            remedy="pip install 'zero-sizer[report]'",
            where="page",
        )
    return Path(found.origin).parent


def _licences(module: str, name: str) -> Iterator[tuple[str, Path]]:
    """Files of a library that say under which terms it may be passed on."""
    try:
        listed = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in listed:
        if "licen" in file.name.lower() and ".dist-info" in str(file):
            yield f"licences/{module}/{file.name}", Path(str(file.locate()))
