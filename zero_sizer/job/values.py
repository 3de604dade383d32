"""Checks of stated values: each gives the typed value, or ValueError in the user's words."""

import re
from collections.abc import Mapping
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from zero_sizer.config.workload import DEEPSPEED, REENTRANT, Checkpointing
from zero_sizer.models.feeds.records import Images
from zero_sizer.units import MIB, TIB, parse_count, parse_size
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import did_you_mean, shown

if TYPE_CHECKING:
    from datetime import date


TOKENS_OF_K = 1024
"""Lengths are powers of two: a model of 4k takes 4096 tokens, one of 128k 131,072."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from ``lowest`` to ``highest``.

    Attributes:
        highest: the most that it may be.
        lowest: the least.
        thousand: what a ``k`` behind it stands for; 0: none may stand there.
    """

    highest: int
    lowest: int = 1
    thousand: int = 0

    def __call__(self, value: Any) -> int:
        """The number, if it is one."""
        if self.thousand and isinstance(value, str):
            value = in_thousands(value, self.thousand)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{shown(value)} is not a whole number")
        if not self.lowest <= value <= self.highest:
            raise ValueError(f"{shown(value)} is not between {self.lowest} and {self.highest:,}")
        return value


def in_thousands(text: str, thousand: int) -> int | str:
    """``4k`` as a number; any other text as it is."""
    number = text.strip().lower().removesuffix("k")
    is_one = number.isascii() and number.isdecimal() and len(number) < 10
    return int(number) * thousand if is_one and number != text.strip() else text


@dataclass(frozen=True, slots=True)
class Size:
    """A size above 0: bytes, or text with a unit."""

    highest: int

    def __call__(self, value: Any) -> int:
        """Bytes."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{shown(value)} is not a size; write for example 512GiB or 80GB")
        num_bytes = parse_size(value)
        if not _SMALLEST <= num_bytes <= self.highest:
            raise ValueError(
                f"{shown(value)} is {_in_bytes(num_bytes)}, not a size between 1 MiB and "
                f"{self.highest // TIB} TiB{_with_unit(value, num_bytes)}"
            )
        return num_bytes


_SMALLEST = MIB  # nobody's memory; a number without a unit is meant to have one


def _in_bytes(num_bytes: int) -> str:
    return f"{num_bytes:,} byte{'' if num_bytes == 1 else 's'}"


def _with_unit(value: Any, num_bytes: int) -> str:
    bare = str(value).strip()
    likely = 1 <= num_bytes < _SMALLEST and bare.replace(".", "", 1).isdecimal()
    return f"; write {bare}GiB" if likely else ""


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these words."""

    choices: tuple[str, ...]

    def __call__(self, value: Any) -> str:
        """The word, if it is one of them."""
        if value not in self.choices:
            raise ValueError(f"{shown(value)} is not one of {', '.join(self.choices)}")
        return str(value)


@dataclass(frozen=True, slots=True)
class Amount:
    """How many, from 1 on, such as ``300B`` or ``1e12``."""

    highest: int

    def __call__(self, value: Any) -> int:
        """The number, if it is one."""
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError(f"{shown(value)} is not a number; write for example 300B or 1.5T")
        number = parse_count(value)
        if not 1 <= number <= self.highest:
            raise ValueError(f"{shown(value)} is not between 1 and {self.highest:.0e}")
        return number


@dataclass(frozen=True, slots=True)
class Number:
    """A number up to ``highest``, from ``lowest`` on where that is stated, else above 0."""

    highest: float
    lowest: float = 0.0

    def __call__(self, value: Any) -> float:
        """The number, if it is one."""
        try:
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{shown(value)} is not a number") from None
        is_low = number < self.lowest if self.lowest else number <= 0
        if not isfinite(number) or is_low or number > self.highest:
            bounds = f"from {self.lowest:g}" if self.lowest else "above 0 and"
            raise ValueError(f"{shown(value)} is not a number {bounds} up to {self.highest:g}")
        return number


def share(value: Any) -> float:
    """A part of a whole: from 0 on, less than 1."""
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is not a number") from None
    if not 0 <= number < 1:
        raise ValueError(f"{shown(value)} is not between 0 and 1")
    return number


def day(value: Any) -> "date":
    """A day such as ``2026-01-31``."""
    from datetime import date  # most jobs state none

    if isinstance(value, date):
        return value
    try:
        found = date.fromisoformat(value.strip())
        if len(value.strip()) != len("2026-01-31") or not 1970 <= found.year <= 2999:
            raise ValueError
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{shown(value)} is not a day; write it as 2026-01-31") from None
    return found


def rate(value: Any) -> float:
    """A number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a number")
    if not 0 < value <= 1e9:
        raise ValueError(f"{shown(value)} is not a rate between 0 and 1e9")
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


_SIDE = Whole(65_536)
_COUNT = Whole(4_096, lowest=0)
_IMAGES_WORDS = "write how many, and size=PIXELS or size=HEIGHTxWIDTH behind a comma: 2,size=1024"


def images(value: Any) -> Images:
    """How many and how large: ``2``, ``1,size=448x896``, or a mapping of count and size."""
    if isinstance(value, Images):
        return value
    if isinstance(value, Mapping):
        unknown = [str(key) for key in value if key not in ("count", "size")]
        if unknown:
            raise ValueError(f"{shown(unknown[0])} is neither count nor size")
        count, size = value.get("count", 1), value.get("size")
    else:
        first, _, rest = str(value).partition(",")
        word, _, size = rest.strip().partition("=")
        if isinstance(value, bool) or not first.strip().isdecimal() or (rest and word != "size"):
            raise ValueError(f"{shown(value)} is not a number of images; {_IMAGES_WORDS}")
        count = int(first)
    return Images(_COUNT(count), *_sides(size or None))


def _sides(size: Any) -> tuple[int, ...]:
    """(height, width), or nothing where none is said."""
    if size is None:
        return ()
    sides = str(size).lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise ValueError(f"size {shown(size)} is not pixels; {_IMAGES_WORDS}")
    found = [_SIDE(int(side)) for side in sides]
    return found[0], found[-1]


_PRODUCT = re.compile(r"[\d\sx*]{1,60}")
_POWER = re.compile(r"\d{1,9}(\.\d{1,9})?[eE]\+?\d{1,2}")


def pixels(value: Any) -> int:
    """A number of pixels, or factors as scripts write them: ``768x768``, ``1280*28*28``."""
    if isinstance(value, str) and _PRODUCT.fullmatch(text_of := value.lower()):
        parts = [part.strip() for part in re.split("[x*]", text_of)]
        if all(part.isdecimal() for part in parts):
            value = prod(map(int, parts))
    elif isinstance(value, str) and _POWER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return _PIXELS(value)
    except ValueError as error:
        raise ValueError(f"{error}; write 602112, or 768x784") from None


_PIXELS = Whole(2**31)
_CHECKPOINTING_WORDS = "every-K, first-K, offload, reentrant, deepspeed"


def _checkpointing_word(word: str) -> tuple[str, Any]:
    name, _, number = word.partition("-")
    if name in ("every", "first") and number.isdecimal():
        return name, Whole(100_000)(int(number[:9]))
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


def optim(value: Any) -> str:
    """A name of transformers' ``OptimizerNames``."""
    from zero_sizer.optimizers.trainer import NAMES  # most jobs state none

    name = value.strip().lower() if isinstance(value, str) else ""
    if name in NAMES:
        return name
    hint = did_you_mean(name[:60], NAMES) or f"known: {', '.join(sorted(NAMES))}"
    raise ValueError(f"{shown(value)} is no optimizer of the Trainer's; {hint}")


_RELEASE = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}")


def release(value: Any) -> str:
    """A package's version, such as ``0.15.1``."""
    if isinstance(value, float):
        raise ValueError(f"{shown(value)} is a number: write the version in quotes")
    if not isinstance(value, str) or not _RELEASE.fullmatch(value):
        raise ValueError(f"{shown(value)} is no version such as 0.15.1")
    return value


def text(value: Any) -> str:
    """A word or a path."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{shown(value)} is not a name")
    return value
