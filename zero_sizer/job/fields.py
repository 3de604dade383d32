"""The fields a job YAML and the flags share: their names, types and bounds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import DEEPSPEED, REENTRANT, Checkpointing
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import RATES, Stated
from zero_sizer.models.changes.freeze import patterns
from zero_sizer.units import MIB, TIB, parse_count, parse_size
from zero_sizer.util.spelling import shown

Check = Callable[[Any], Any]  # the value, or ValueError in the user's words


@dataclass(frozen=True, slots=True)
class Field:
    """One value the user may state.

    Attributes:
        name: key in the YAML section, and of ``Flags``.
        check: gives the typed value or raises ValueError.
    """

    name: str
    check: Check

    @property
    def flag(self) -> str:
        """The command line option."""
        return "--" + self.name.replace("_", "-")

    def parse(self, value: Any, where: str) -> Any:
        """The typed value.

        Raises:
            InputError: wrong type or out of bounds, naming ``where``.
        """
        try:
            return self.check(value)
        except ValueError as error:
            named = "" if where.startswith("--") else f"{self.name}: "
            raise InputError(f"{named}{error}", where=where) from None


def whole(highest: int, *, lowest: int = 1) -> Check:
    """A whole number from ``lowest`` to ``highest``."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)} is not a whole number")
        if not lowest <= value <= highest:
            raise ValueError(f"{shown(value)} is not between {lowest} and {highest:,}")
        return value

    return check


def size(highest: int) -> Check:
    """A size above 0: bytes, or text with a unit."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{shown(value)} is not a size; write for example 512GiB or 80GB")
        num_bytes = parse_size(value)
        if not _SMALLEST <= num_bytes <= highest:
            raise ValueError(
                f"{shown(value)} is {_in_bytes(num_bytes)}, not a size between 1 MiB and "
                f"{highest // TIB} TiB{_with_unit(value, num_bytes)}"
            )
        return num_bytes

    return check


_SMALLEST = MIB  # nobody's memory; a number without a unit is meant to have one


def _in_bytes(num_bytes: int) -> str:
    return f"{num_bytes:,} byte{'' if num_bytes == 1 else 's'}"


def _with_unit(value: Any, num_bytes: int) -> str:
    bare = str(value).strip()
    likely = 1 <= num_bytes < _SMALLEST and bare.replace(".", "", 1).isdecimal()
    return f"; write {bare}GiB" if likely else ""


def one_of(*choices: str) -> Check:
    """One of these words."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{shown(value)} is not one of {', '.join(choices)}")
        return str(value)

    return check


def rate(value: Any) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a number")
    if not 0 < value <= 1e9:
        raise ValueError(f"{shown(value)} is not a rate between 0 and 1e9")
    return float(value)


def amount(highest: int) -> Check:
    """A number of things from 1 on, such as ``300B`` or ``1e12``."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"{shown(value)} is not a number; write for example 300B or 1.5T")
        number = parse_count(value)
        if not 1 <= number <= highest:
            raise ValueError(f"{shown(value)} is not between 1 and {highest:.0e}")
        return number

    return check


def times(value: Any) -> float:
    """How often something is done, in parts too: from a thousandth to a million."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"{shown(value)} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a number")
    if not 1e-3 <= value <= 1e6:
        raise ValueError(f"{shown(value)} is not between 0.001 and 1e6")
    return float(value)


def yes_or_no(value: Any) -> bool:
    """True or false, and no number that looks like it."""
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not true or false")
    return value


def checkpointing(value: Any) -> bool | Checkpointing:
    """True, false, or words such as ``every-2,offload``."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not true or false, nor words: {_CHECKPOINTING_WORDS}")
    fields: dict[str, Any] = {}
    for word in value.split(","):
        name, field_value = _checkpointing_word(word.strip())
        if name in fields:
            raise ValueError(f"{shown(value)} says two things at once")
        fields[name] = field_value
    if {"every", "first"} <= fields.keys():
        raise ValueError("every-K and first-K exclude each other")
    if fields.get("offload") and fields.get("by") == DEEPSPEED:
        raise ValueError(
            "offload is transformers'; DeepSpeed's is activation_checkpointing.cpu_checkpointing"
        )
    return Checkpointing(**fields)


_CHECKPOINTING_WORDS = "every-K, first-K, offload, reentrant, deepspeed"


def _checkpointing_word(word: str) -> tuple[str, Any]:
    name, _, number = word.partition("-")
    if name in ("every", "first") and number.isdecimal():
        return name, whole(100_000)(int(number[:9]))
    match word:
        case "offload":
            return "offload", True
        case "reentrant":
            return "by", REENTRANT
        case "deepspeed":
            return "by", DEEPSPEED
    raise ValueError(
        f"{shown(word)} is none of {_CHECKPOINTING_WORDS}; --checkpointing and --no-checkpointing "
        "(checkpointing: true or false in a job file) switch it"
    )


def text(value: Any) -> str:
    """A word or a path."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{shown(value)} is not a name")
    return value


HOST_MEMORY = Field("host_memory", size(2**20 * TIB))
CLUSTER = (
    Field("nodes", whole(1_000_000)),
    Field("gpus_per_node", whole(1024)),
    Field("gpu", text),
    Field("gpu_memory", size(64 * TIB)),
    HOST_MEMORY,
    Field("nvme", size(2**20 * TIB)),
    Field("hostfile", text),
    *(Field(name, rate) for name in RATES),
)
WORKLOAD = (
    Field("seq_len", whole(2**31)),
    Field("micro_batch", whole(2**31)),
    Field("grad_accum", whole(2**31)),
    Field("checkpointing", checkpointing),
    Field("attention", one_of("flash", "sdpa", "eager")),
    Field("sequences", one_of("equal", "padded", "packed")),
    Field(
        "loss", one_of("transformers", "transformers-16bit", "megatron", "fused", "fused-linear")
    ),
    Field("kernels", one_of("transformers", "liger")),
    Field("num_workers", whole(1024, lowest=0)),
    Field("prefetch", whole(1024)),
    Field("precision", one_of("bf16", "fp16", "fp32")),
    Field("zero_init", yes_or_no),
    Field("tokens", amount(10**18)),
    Field("samples", amount(10**15)),
    Field("epochs", times),
)
FREEZE = Field("freeze", patterns)  # of the model, said with the workload


def from_file(file: Document, section: str, fields: tuple[Field, ...]) -> dict[str, Stated]:
    """What one section of a job YAML states; a key with no value states nothing.

    Raises:
        InputError: not a mapping, an unknown key, or a value of the wrong type.
    """
    values = file.get(section)
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(
            f"{section}: {shown(values)} is not a mapping",
            remedy=f"write {section}: {{{fields[0].name}: ...}}",
            where=file.where(section),
        )
    refuse_unknown(file, section, [field.name for field in fields])
    found = {}
    for field in fields:
        key = f"{section}.{field.name}"
        value = values.get(field.name)
        if value is not None:
            found[field.name] = Stated(field.parse(value, file.where(key)), file.where(key))
    if "hostfile" in found:
        beside = Path(file.source).parent / found["hostfile"].value
        found["hostfile"] = Stated(str(beside), found["hostfile"].origin)
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
        from difflib import get_close_matches

        near = get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        path = f"{section}.{key}" if section else str(key)
        place = f"under {section}:" if section else kind
        raise InputError(f"unknown key {shown(key)} {place}", remedy=hint, where=file.where(path))
