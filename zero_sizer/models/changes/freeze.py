"""Parameters that a job does not train, by patterns over their names."""

import re
from collections.abc import Iterable
from dataclasses import replace

from zero_sizer.models.changes.records import Freeze, matches
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.spelling import nearest

_MOST, _LONGEST, _MOST_STARS = 64, 200, 8  # keeps matching short, whatever is written
HOW = "patterns are of whole names, with * for any part: *.vision_tower.*"
_COMMA = re.compile(r",(?![^\[\]]*\])")  # outside of [a,b]; no parameter's name has one


def patterns(value: object) -> tuple[str, ...]:
    """A list of patterns, or some with commas between them, as typed.

    Raises:
        ValueError: something else, or more than can be matched quickly.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError(f"{value!r} is not a list of patterns of parameter names")
    found: list[str] = []
    for item in items:
        if not isinstance(item, str) or not item.strip(", "):
            raise ValueError(f"{item!r} is not a pattern of parameter names")
        if len(item) > 10 * _LONGEST:
            raise ValueError(f"a list of patterns has at most {10 * _LONGEST} characters")
        found += [part.strip() for part in _COMMA.split(item) if part.strip()]
    if len(found) > _MOST:
        raise ValueError(f"{len(found)} patterns are more than {_MOST}")
    for item in found:
        if len(item) > _LONGEST or item.count("*") > _MOST_STARS:
            raise ValueError(f"a pattern has at most {_LONGEST} characters and {_MOST_STARS} stars")
    return tuple(found)


def patterns_of(names: Iterable[str], spec: ModelSpec) -> tuple[str, ...]:
    """Few patterns that name exactly these parameters: whole modules, layers by their digits."""
    chosen = set(names)
    others = set(_names(t.name for t in spec.parameters if t.name not in chosen))
    whole = set()
    for name in chosen:
        parts = name.split(".")
        prefixes = (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        whole.add(next(prefix for prefix in prefixes if prefix not in others))
    digits: dict[tuple[str, str], list[str]] = {}
    for name in sorted(whole):
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
        if at is None:
            digits[name, ""] = []
            continue
        before, after = ".".join([*parts[:at], parts[at][:-1]]), ".".join(["", *parts[at + 1 :]])
        digits.setdefault((before, after), []).append(parts[at][-1])
    return tuple(f"{before}{_one_of(found)}{after}" for (before, after), found in digits.items())


def _one_of(digits: list[str]) -> str:
    return f"[{''.join(digits)}]" if len(digits) > 1 else "".join(digits)


def with_freeze(spec: ModelSpec, freeze: Freeze) -> ModelSpec:
    """``spec`` with what the patterns name no longer trained; under an adapter by peft's names."""
    parameters = tuple(
        replace(tensor, trainable=False) if freeze.takes(tensor.name) else tensor
        for tensor in spec.parameters
    )
    if parameters == spec.parameters:
        return replace(spec, freeze=freeze)
    return replace(spec, parameters=parameters, freeze=freeze, base=spec.base or spec)


def unmatched(spec: ModelSpec) -> list[str]:
    """Patterns that name no parameter."""
    found = spec.freeze.patterns if spec.freeze is not None else ()
    return [p for p in found if not any(matches(p, t.name) for t in spec.parameters)]


def near(spec: ModelSpec, pattern: str) -> list[str]:
    """Names of modules and parameters that resemble the pattern."""
    names = set(_names(tensor.name for tensor in spec.parameters))
    plain = pattern.replace("*", "").strip(".")
    ends = {name.rpartition(".")[2]: name for name in sorted(names, reverse=True)}
    found = nearest(plain, names, count=2) or [
        ends[end] for end in nearest(plain.rpartition(".")[2], ends, count=2)
    ]
    return sorted(found)


def _names(parameters: Iterable[str]) -> Iterable[str]:
    for name in parameters:
        parts = name.split(".")
        yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
