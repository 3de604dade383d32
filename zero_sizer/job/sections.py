"""Sections of a YAML, checked against the table of what users state."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from zero_sizer.config.document import Document
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.fields import Field
from zero_sizer.util.spelling import did_you_mean, shown


def from_file(file: Document, section: str, options: tuple[Field, ...]) -> dict[str, Stated]:
    """Statements of one section of a job YAML; a key with no value states nothing.

    Raises:
        InputError: not a mapping, an unknown key, or a value of the wrong type.
    """
    values = file.get(section)
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(
            f"{section}: {shown(values)} is not a mapping",
            remedy=f"write {section}: {{{options[0].name}: ...}}",
            where=file.where(section),
        )
    refuse_unknown(file, section, [option.name for option in options])
    found = {}
    for option in options:
        key = f"{section}.{option.name}"
        value = values.get(option.name)
        if value is not None:
            found[option.name] = Stated(option.parse(value, file.where(key)), file.where(key))
    for name in ("hostfile", "cluster_profile"):
        if name in found:
            beside = Path(file.source).parent / found[name].value
            found[name] = Stated(str(beside), found[name].origin)
    return found


def refuse_unknown(
    file: Document, section: str, known: Iterable[str], kind: str = "in a job file"
) -> None:
    """Stops at a key the YAML does not have, with the nearest that it has.

    Raises:
        InputError: there is one.
    """
    known = list(known)
    values = file.get(section) if section else file.values
    for key in values:
        if key in known:
            continue
        hint = did_you_mean(str(key), known) or f"known: {', '.join(known)}"
        path = f"{section}.{key}" if section else str(key)
        place = f"under {section}:" if section else kind
        raise InputError(f"unknown key {shown(key)} {place}", remedy=hint, where=file.where(path))
