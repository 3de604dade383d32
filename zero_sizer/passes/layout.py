"""Where a profile's steps meet a model's parameters."""

from collections.abc import Iterator
from functools import lru_cache

from zero_sizer.models.spec import ModelSpec
from zero_sizer.passes.levels import MicroStep, SectionLevels
from zero_sizer.passes.timeline import Layout, Place


def layout_of(spec: ModelSpec, step: MicroStep) -> Layout:
    """The places of a micro step, for the timeline.

    ``runs`` gathers a module's parameters in forward and recomputation. In backward a module's
    parameters are gathered just before its own backward, so before the first of its gradients is
    complete. A module that owns none but is named by the profile shares a tied tensor: the first.
    """
    key = tuple(
        (part.blocks, part.first, part.count, _labels(part.forward), _labels(part.backward))
        for part in step.parts
    )
    return _layout(_Identity(spec), key)


_Labels = tuple[tuple[str, str], ...]
_Row = tuple[str, int, int, _Labels, _Labels]


def _labels(section: SectionLevels) -> _Labels:
    return tuple((step.runs, step.completes) for step in section.steps)


class _Identity:
    """A spec as cache key: it never changes."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other.spec is self.spec


@lru_cache(maxsize=64)
def _layout(identity: _Identity, rows: tuple[_Row, ...]) -> Layout:
    names = _Names(identity.spec)
    forward = tuple(_positions(names, row, is_backward=False) for row in rows)
    backward = tuple(_positions(names, row, is_backward=True) for row in rows)
    return Layout(forward=forward, backward=backward)


class _Names:
    """Parameter indices by name and by module."""

    def __init__(self, spec: ModelSpec) -> None:
        self.index = {tensor.name: i for i, tensor in enumerate(spec.parameters)}
        self.trainable = {i for i, tensor in enumerate(spec.parameters) if tensor.trainable}
        self._of_module: dict[str, tuple[int, ...]] = {}
        for i, tensor in enumerate(spec.parameters):
            self._of_module[tensor.module] = (*self._of_module.get(tensor.module, ()), i)

    def module(self, name: str) -> tuple[int, ...]:
        """Parameters a module uses; a tied one's stand under another name, the first."""
        return self._of_module.get(name, (0,) if self.index else ())


def _positions(names: _Names, row: _Row, *, is_backward: bool) -> tuple[tuple[Place, ...], ...]:
    blocks, first, count, forward, backward = row
    labels = backward if is_backward else forward
    numbers = (
        range(first + count - 1, first - 1, -1) if is_backward else range(first, first + count)
    )
    columns = [tuple(_places(names, blocks, number, labels, is_backward)) for number in numbers]
    return tuple(zip(*columns, strict=True))


def _places(
    names: _Names, blocks: str, number: int, labels: _Labels, is_backward: bool
) -> Iterator[Place]:
    prefix = f"{blocks}.{number}" if blocks else ""
    seen: set[tuple[int, ...]] = set()
    for runs, completes in labels:
        gathers = names.module(_join(prefix, runs)) if runs else ()
        index = names.index.get(_join(prefix, completes), -1) if completes else -1
        if is_backward and index >= 0 and not gathers:
            owner = names.module(_join(prefix, completes).rpartition(".")[0])
            gathers = () if owner in seen else owner
            seen.add(owner)
        passed = "backward of" if is_backward else "forward of"
        what = _join(prefix, completes or runs) or "what lies outside of blocks"
        yield Place(f"{passed} {what}", gathers, index if index in names.trainable else -1)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else name or prefix
