"""Facts about another tool's file: which of its keys say what of ours, and its own defaults."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.errors import InputError
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job import fields as stated
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import nearest, shown

_FIELDS = {option.name: option for option in (*stated.WORKLOAD, *stated.CLUSTER)}
ASK_THE_ENGINE = "ask `zero-sizer dryrun --how simulated` of the script"
_SHORTEST = 6  # of two short words, any two are alike


def same(value: Any) -> Any:
    """The value as it is."""
    return value


def yes(value: Any) -> bool:
    """True or false, also as text."""
    text = str(value).strip().lower()
    if text not in ("true", "false", "yes", "no", "1", "0"):
        raise ValueError(f"{shown(value)} is not true or false")
    return text in ("true", "yes", "1")


def word_of(words: Mapping[str, str | None]) -> Callable[[Any], str | None]:
    """Reads one of a tool's words; None where it says nothing to us.

    A word that is not in ``words`` is a mistake.
    """

    def read(value: Any) -> str | None:
        text = str(value).strip().lower()
        if text not in words:
            raise ValueError(f"{shown(value)} is none of {', '.join(words)}")
        return words[text]

    return read


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One value that a tool's file states.

    Attributes:
        field: of the workload or the cluster.
        keys: the tool's names of it; the first that is there counts.
        read: the tool's value in our words; None where it says nothing; ValueError if it is none.
        default: the tool's own, in our words; None where it has none.
    """

    field: str
    keys: tuple[str, ...]
    read: Callable[[Any], Any] = same
    default: Any = None


def is_on(value: Any) -> bool:
    """True of a value that switches something on."""
    return value not in (None, False, "", 0, "none", "no", "false", [], {})


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A key that changes what is needed, and is not modelled.

    Attributes:
        key: the tool's.
        message: what it does, in one clause.
        direction: how it moves what is predicted; None where only some data does.
        applies: the values that do.
        remedy: what to do about it.
    """

    key: str
    message: str
    direction: Direction | None
    applies: Callable[[Any], bool] = is_on
    remedy: str = ASK_THE_ENGINE


def videos(key: str) -> LeftOut:
    """A bound on videos, of which no sample is taken to bring one."""
    return LeftOut(
        key=key,
        message="bounds frames of videos; samples are taken to bring images",
        direction=None,
        remedy="where the data has videos, run the script: `zero-sizer dryrun --how simulated`",
    )


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool whose files are read.

    Attributes:
        name: as its users write it.
        version: whose defaults these are.
        facts: what its keys say.
        left_out: keys that are not modelled.
        known: further keys that its reader reads, or that are often mistaken for those.
    """

    name: str
    version: str
    facts: Sequence[Fact]
    left_out: Sequence[LeftOut] = ()
    known: frozenset[str] = frozenset()

    @property
    def default(self) -> str:
        """Origin of its own defaults."""
        return f"default of {self.name} {self.version}".rstrip()


def workload(tool: Tool, file: Document) -> dict[str, Stated]:
    """Everything that a file states by the tool's table, typed.

    Raises:
        InputError: a value is wrong, with its line.
    """
    found = {}
    for fact in tool.facts:
        said = first(file, fact.keys)
        if said is None:
            if fact.default is not None:
                found[fact.field] = Stated(fact.default, tool.default)
            continue
        key, value = said
        where = file.where(key)
        try:
            meant = fact.read(value)
            if meant is not None:
                found[fact.field] = Stated(_FIELDS[fact.field].check(meant), where)
        except ValueError as error:
            raise InputError(f"{key}: {error}", where=where) from None
    return found


def typed(field: str, value: Any, where: str) -> Stated:
    """A value of ours, checked as its option checks it.

    Raises:
        InputError: wrong type or out of bounds.
    """
    return Stated(_FIELDS[field].parse(value, where), where)


def first(file: Document, keys: Sequence[str]) -> tuple[str, Any] | None:
    """The first of ``keys`` that has a value, with the value."""
    for key in keys:
        if file.values.get(key) is not None:
            return key, file.values[key]
    return None


def flag(file: Document, key: str, default: bool = False) -> bool:
    """A switch of the tool.

    Raises:
        InputError: it is no switch.
    """
    value = file.values.get(key)
    if value is None:
        return default
    try:
        return yes(value)
    except ValueError as error:
        raise InputError(f"{key}: {error}", where=file.where(key)) from None


def names(file: Document, key: str) -> list[str] | None:
    """Names in a list, or in one text between commas; None where there are none.

    Raises:
        InputError: something else.
    """
    value = file.values.get(key)
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if value is None or value == []:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise InputError(f"{key}: {shown(value)} is not a list of names", where=file.where(key))
    return list(value)


def text(file: Document, key: str) -> str | None:
    """A text, None where there is none.

    Raises:
        InputError: something else.
    """
    value = file.values.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InputError(f"{key}: {shown(value)} is not a name", where=file.where(key))
    return value.strip()


def remarks(tool: Tool, file: Document) -> Iterator[Finding]:
    """Findings: what is not modelled, and keys that look like misspelt ones."""
    for left in tool.left_out:
        value = file.values.get(left.key)
        if value is not None and left.applies(value):
            yield at(file, left.key, not_modelled(
                f"{tool.name}'s {left.key}: {shown(value)} {left.message}",
                left.direction, left.remedy,
            ))  # fmt: skip
    yield from _misspelt(tool, file)


def _misspelt(tool: Tool, file: Document) -> Iterator[Finding]:
    read = {key for fact in tool.facts for key in fact.keys} | {o.key for o in tool.left_out}
    known = read | tool.known
    for key in file.values:
        if key in known or len(key) < _SHORTEST:
            continue
        near = nearest(key, known, cutoff=0.9)
        if near and near[0] not in file.values:
            yield at(file, key, Finding(
                code="unknown-key-of-tool",
                severity=Severity.WARNING,
                message=f"{tool.name} has no key {shown(key)}",
                remedy=f"did you mean {near[0]}?",
            ))  # fmt: skip


NOT_MODELLED = "tool-option-not-modelled"
OF_DATA = "tool-option-of-data"  # which some data meets
OWN_LOSS = "loss-not-modelled"


def is_default(stated: Stated) -> bool:
    """True if a tool's default stands where the file says nothing."""
    return stated.origin.startswith("default of")


def not_modelled(
    message: str, direction: Direction | None, remedy: str = ASK_THE_ENGINE
) -> Finding:
    """A finding that the prediction leaves something out, and which way that moves it."""
    return Finding(
        code=NOT_MODELLED if direction else OF_DATA,
        severity=Severity.WARNING if direction else Severity.NOTE,
        message=message,
        remedy=remedy,
        direction=direction,
    )


def own_loss(message: str) -> Finding:
    """A finding that a trainer's own loss is not in the prediction."""
    found = not_modelled(
        message,
        Direction.EITHER,
        "`zero-sizer dryrun --how simulated -- train.py` runs the script itself",
    )
    return replace(found, code=OWN_LOSS)


def at(file: Document, key: str, finding: Finding) -> Finding:
    """The finding as one about a key of the file."""
    return replace(finding, key=key, line=file.line(key), file=file.source)
