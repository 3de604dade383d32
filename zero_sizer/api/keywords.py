"""Keywords of the questions: the flags' own table, as a signature, as values, as a sweep."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice, product
from typing import Any, TypeVar

from zero_sizer.advise.largest import WHAT
from zero_sizer.api.errors import JobError
from zero_sizer.job.fields import GOAL, OPTIONS, Field
from zero_sizer.job.values import Number, OneOf, Whole, share, yes_or_no
from zero_sizer.questions.choose import FEWEST
from zero_sizer.questions.jobs import HOW
from zero_sizer.util.spelling import did_you_mean, shown

_F = TypeVar("_F", bound=Callable[..., Any])

MOST = 10_000
"""Jobs of one sweep."""

_CHOICE = (
    Field(name="train_batch_size", check=Whole(2**31), help="samples of a step over all GPUs"),
    Field(name="margin", check=share, help="share of every device to leave free"),
)
_OF_CHECK = tuple(option for option in OPTIONS if option.group != GOAL)
_HOW = Field(name=HOW, check=str, help="as `checkpointing`, in words such as every-2,offload")
_TIMELINE = Field(name="timeline", check=yes_or_no, help="also what lives at each place of a step")
_LARGEST = Field(
    name="largest",
    check=OneOf((*WHAT, "batch-size")),
    help="the largest of this that fits, not the fastest plan",
)
_SIZE = (
    Field(name="max_nodes", check=Whole(2**31), help="up to so many are tried (64)"),
    Field(name="fewest", check=OneOf(FEWEST), help="what to count"),
    Field(name="target_tokens_per_second", check=Number(1e30), help="over all GPUs"),
)

KEYWORDS: Mapping[str, tuple[Field, ...]] = {
    "check": (*_OF_CHECK, _HOW, _TIMELINE),
    "choose": (*OPTIONS, _HOW, *_CHOICE, _LARGEST),
    "size": (*(o for o in OPTIONS if o.name != "nodes"), _HOW, *_CHOICE, *_SIZE),
}
"""Question -> its keywords, which are its flags in lower case with underscores."""

OWN = {"timeline", "largest", *(f.name for f in (*_CHOICE, *_SIZE))}
"""Keywords that are not of the job."""


def checked(question: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were given; what is of the question itself is checked here.

    Raises:
        JobError: an unknown keyword, or a value that it cannot have.
    """
    known = {field.name: field for field in KEYWORDS[question]}
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known) or f"help(zero_sizer.{question}) lists them"
            raise JobError(f"{shown(name)} is no keyword of {question}", remedy=hint)
    return {
        name: known[name].parse(value, known[name].flag) if name in OWN else value
        for name, value in values.items()
        if value is not None
    }


def axes(values: Mapping[str, Any]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The keywords that were given several values, and the others.

    Text and mappings are one value; ``freeze`` is a list of its own, and several where it holds
    lists.

    Raises:
        JobError: more jobs than anybody wants in one sweep, or none.
    """
    several: dict[str, list[Any]] = {}
    one: dict[str, Any] = {}
    for name, value in values.items():
        if _is_several(name, value):
            several[name] = [plain(item) for item in islice(value, MOST + 1)]
        else:
            one[name] = plain(value)
    count = 1
    for name, items in several.items():
        count *= len(items)
        if not items:
            raise JobError("no value at all: there is nothing to answer", where=name)
    if count > MOST:
        raise JobError(
            f"more than {MOST:,} jobs in one sweep",
            remedy="ask for fewer values at once",
            where=", ".join(several),
        )
    return several, one


def combinations(several: Mapping[str, list[Any]]) -> Iterable[dict[str, Any]]:
    """One value of each, the last one fastest."""
    for values in product(*several.values()):
        yield dict(zip(several, values, strict=True))


def _is_several(name: str, value: Any) -> bool:
    if isinstance(value, str | bytes | Mapping | os.PathLike) or not isinstance(value, Iterable):
        return False
    if name == "freeze" and isinstance(value, list | tuple):
        return any(not isinstance(item, str) for item in value)
    return getattr(value, "ndim", 1) != 0  # a number of NumPy's may call itself iterable


def plain(value: Any) -> Any:
    """The value as Python has it: NumPy's numbers and paths come from notebooks."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "dtype") and hasattr(value, "item"):
        return value.item()
    if isinstance(value, tuple):
        return list(value)
    return value


def documented(question: str) -> Callable[[_F], _F]:
    """Gives a function the signature and the list of keywords of a question."""

    def decorate(function: _F) -> _F:
        optional = inspect.Parameter.KEYWORD_ONLY
        config = inspect.Parameter(
            "config",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if question == "check" else None,
        )
        fields = KEYWORDS[question]
        names = [inspect.Parameter(field.name, optional, default=None) for field in fields]
        function.__signature__ = inspect.Signature([config, *names])  # type: ignore[attr-defined]
        lines = [f"        {field.name}: {_about(field)}" for field in fields]
        function.__doc__ = (
            (function.__doc__ or "").rstrip() + "\n\n    Keywords:\n" + "\n".join(lines)
        )
        return function

    return decorate


def _about(field: Field) -> str:
    choices = getattr(field.check, "choices", ())
    told = field.help or f"as {field.flag}"
    return f"{told} ({', '.join(choices)})" if choices else told
