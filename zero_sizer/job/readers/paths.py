"""The DeepSpeed config that another tool's file names, and the files beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.errors import InputError
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers.facts import at, text
from zero_sizer.job.readers.own import part
from zero_sizer.util.files import existing
from zero_sizer.util.spelling import shown


def config(
    file: Document, key: str, tool: str, presets: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Document | None, list[Finding]]:
    """The DeepSpeed config at ``key``: a mapping, a path, or the name of one of the tool's own.

    Args:
        file: the tool's file.
        key: of it.
        tool: its name.
        presets: configs that come with the tool, by name.

    Returns:
        The config, None where the file names none; and where it was found, if not as the tool does.

    Raises:
        InputError: no such file, or no DeepSpeed config in it.
    """
    from zero_sizer.config import document

    value = file.values.get(key)
    if value is None or value == "":
        return None, []
    if isinstance(value, Mapping):
        return part(file, key), []
    named = text(file, key) or ""
    if presets and named in presets:
        source = f"{tool}'s {named} ({file.where(key)})"
        return document.from_mapping(presets[named], source=source), []
    own = None if presets is None else presets.get(_own_name(named))
    if own is not None and near(file.source, named) is None:
        return _own(file, key, tool, own), [_taken(file, key, named, tool)]
    if named.startswith("{"):  # the Trainer takes JSON on the command line
        return _inline(named, file.where(key)), []
    path, notes = found(file, key, named, tool)
    return document.load(path), notes


_OWN_FOLDERS = ("deepspeed", "deepspeed_configs")
"""Folders in which LLaMA-Factory and axolotl bring DeepSpeed configs."""


def _own_name(named: str) -> str:
    """Name of a file that stands where the tool has its own; empty for another."""
    path = Path(named)
    return path.name if path.parent.name in _OWN_FOLDERS else ""


def _own(file: Document, key: str, tool: str, values: Mapping[str, Any]) -> Document:
    from zero_sizer.config import document

    name = Path(text(file, key) or "").name
    return document.from_mapping(values, source=f"{tool}'s {name} ({file.where(key)})")


def _taken(file: Document, key: str, named: str, tool: str) -> Finding:
    note = Finding(
        code="file-of-tool",
        severity=Severity.NOTE,
        message=f"no file {shown(named)} here: the one of that name that comes with {tool} is read",
        remedy="put yours beside, if it is another",
    )
    return at(file, key, note)


def _inline(written: str, where: str) -> Document:
    import json

    from zero_sizer.config import document

    try:
        values = json.loads(written)
    except (ValueError, RecursionError):
        raise InputError(f"{shown(written)} is no JSON", where=where) from None
    return document.from_mapping(values, source=where)


def found(file: Document, key: str, named: str, tool: str) -> tuple[str, list[Finding]]:
    """Path of a file that another names, and a note where it was not in the working folder.

    Raises:
        InputError: it is nowhere.
    """
    path = near(file.source, named)
    if path is None:
        beside = Path(file.source).parent / named
        places = " nor ".join(dict.fromkeys((shown(named), shown(str(beside)))))
        raise InputError(f"{key}: no file {places}", where=file.where(key))
    if path == named:
        return named, []
    note = Finding(
        code="file-beside",
        severity=Severity.NOTE,
        message=f"read from {path}; {tool} looks for {named} in the folder it is started in",
    )
    return path, [at(file, key, note)]


def near(source: str, named: str) -> str | None:
    """Path of a file that ``source`` names: from the working folder, that of ``source`` or above.

    Repositories have their scripts deep inside and start them from the top.
    """
    if existing(named) is not None:
        return named
    folder = Path(source).parent
    for above in (folder, *folder.parents, *folder.absolute().parents):
        if existing(above / named) is not None:
            return str(above / named)
    return None


def model(file: Document, key: str) -> Stated | None:
    """The model at ``key``: a name of the hub, or a path in the working folder or beside the file.

    Raises:
        InputError: no text.
    """
    named = text(file, key)
    if named is None:
        return None
    path = near(file.source, named) if "/" in named else named
    return Stated(path or named, file.where(key))
