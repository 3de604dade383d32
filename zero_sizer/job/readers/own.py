"""The job YAML (see ``job.read``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import TRAINING
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job import fields as stated
from zero_sizer.job import sections
from zero_sizer.job.statements import NONE_GIVEN, Statements
from zero_sizer.util.spelling import shown

SECTIONS = ("model", "adapter", "quantization", "deepspeed", "cluster", "workload")


def read(file: Document) -> Statements:
    """Reads a job YAML.

    Raises:
        InputError: an unknown key, a value of the wrong type, or no DeepSpeed config.
    """
    sections.refuse_unknown(file, "", SECTIONS)
    document = _config(file)
    return Statements(
        source=file.source,
        document=document,
        model=_model(file),
        adapter=_adapter(file),
        quantization=_quantization(file),
        cluster=sections.from_file(file, "cluster", stated.CLUSTER),
        workload=sections.from_file(file, "workload", (*stated.WORKLOAD, stated.FREEZE)),
    )


def _config(file: Document) -> Document:
    """The DeepSpeed config that the YAML names, or its mapping."""
    from zero_sizer.config import document

    value = file.get("deepspeed")
    if value is None and file.get("workload.task") not in (None, TRAINING):  # checked later
        return Document(source=NONE_GIVEN, values={}, lines={})
    if isinstance(value, Mapping):
        return part(file, "deepspeed")
    if not isinstance(value, str) or not value.strip():
        what = "no DeepSpeed config" if value is None else "deepspeed: is not a path or a mapping"
        raise InputError(
            what,
            remedy="add deepspeed: ds.json, or the config itself as a mapping",
            where=file.where("deepspeed"),
        )
    target = Path(file.source).parent / value
    if not target.exists():
        raise InputError(f"no file {str(target)!r}", where=file.where("deepspeed"))
    return document.load(str(target))


def part(file: Document, key: str) -> Document:
    """The mapping at ``key`` as a config of its own, with its lines."""
    prefix = f"{key}."
    lines = {k.removeprefix(prefix): n for k, n in file.lines.items() if k.startswith(prefix)}
    return Document(source=file.source, values=file.get(key), lines=lines)


def _model(file: Document) -> Stated | None:
    """What names the model; a path is relative to the YAML."""
    value: Any = file.get("model")
    if value is None:
        return None
    where = file.where("model")
    if isinstance(value, Mapping):
        return Stated(numbers(value, where), where)
    if not isinstance(value, str) or not value.strip():
        raise InputError("model: is not a name, a path or numbers", where=where)
    return Stated(model_beside(file.source, value), where)


def model_beside(path: str, value: str) -> str:
    """Name of a model in the file at ``path``; one that is a path is relative to the file."""
    beside = Path(path).parent / value
    is_path = "/" in value or Path(value).suffix in (".json", ".safetensors")
    return str(beside) if is_path and beside.exists() else value


def numbers(value: Mapping[str, Any], where: str) -> str:
    """``params=7e9,layers=32`` of a mapping."""
    for key, item in value.items():
        if not key.isidentifier() or isinstance(item, bool) or not isinstance(item, int | float):
            raise InputError(f"model.{key}: {shown(item)} is not a number", where=where)
    return ",".join(f"{key}={item}" for key, item in value.items())


def _quantization(file: Document) -> Stated | None:
    value = file.get("quantization")
    if value is None:
        return None
    where = file.where("quantization")
    if not isinstance(value, Mapping | str):
        raise InputError("quantization: is not text such as nf4,double", where=where)
    return Stated(value, where)


def _adapter(file: Document) -> Stated | None:
    value = file.get("adapter")
    if value is None:
        return None
    where = file.where("adapter")
    if not isinstance(value, Mapping | str):
        raise InputError("adapter: is not a path or a mapping", where=where)
    if isinstance(value, str):
        beside = Path(file.source).parent / value
        value = str(beside) if "=" not in value and beside.exists() else value
    return Stated(value, where)
