"""Parameters that a job does not train, by patterns over their names."""

from collections.abc import Iterable
from dataclasses import replace

from zero_sizer.models.changes.records import Freeze, matches
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.spelling import nearest

_MOST, _LONGEST, _MOST_STARS = 64, 200, 8  # keeps matching short, whatever is written


def patterns(value: object) -> tuple[str, ...]:
    """A list of patterns, or one, as typed.

    Raises:
        ValueError: something else, or more than can be matched quickly.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ValueError(f"{value!r} is not a list of patterns of parameter names")
    if len(items) > _MOST:
        raise ValueError(f"{len(items)} patterns are more than {_MOST}")
    for item in items:
        if not isinstance(item, str) or not item.strip():
            raise ValueError(f"{item!r} is not a pattern of parameter names")
        if len(item) > _LONGEST or item.count("*") > _MOST_STARS:
            raise ValueError(f"a pattern has at most {_LONGEST} characters and {_MOST_STARS} stars")
    return tuple(items)


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
