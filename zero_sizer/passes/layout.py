"""Where a profile's steps meet a model's parameters."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from zero_sizer.identity import Identity
from zero_sizer.models.spec import ModelSpec
from zero_sizer.passes.levels import MicroStep
from zero_sizer.passes.overlay import Layout, Place


def layout_of(spec: ModelSpec, step: MicroStep) -> Layout:
    """The places of a micro step, for the timeline.

    ``runs`` gathers a module's parameters in forward and recomputation. In backward a module's
    parameters are gathered just before its own backward, so before the first of its gradients is
    complete. A module that owns none but is named by the profile shares a tied tensor: the first.
    """
    key = tuple(
        (part.blocks, part.first, part.count, part.forward.labels, part.backward.labels)
        for part in step.parts
    )
    return _layout(Identity(spec), key)


def depths_of(spec: ModelSpec, stacks: Iterable[str]) -> dict[str, int]:
    """How many blocks the model has in each list of blocks; one that was cut has fewer."""
    return {stack: _depth(Identity(spec), stack) for stack in stacks}


_ADAPTER = "default"  # what peft's lists of adapters call theirs
_DROPOUT_BEFORE = f".lora_A.{_ADAPTER}"  # runs a dropout module (or an identity) first

_Labels = tuple[tuple[str, str], ...]
_Row = tuple[str, int, int, _Labels, _Labels]


@lru_cache(maxsize=64)
def _depth(spec: Identity, stack: str) -> int:
    prefix = f"{stack}."
    names = (tensor.name for tensor in spec.of.parameters)
    return len({n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)})


@lru_cache(maxsize=64)
def _layout(spec: Identity, rows: tuple[_Row, ...]) -> Layout:
    names = _Names(spec.of)
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
    blocks, first, count, _, _ = row
    numbers = (
        range(first + count - 1, first - 1, -1) if is_backward else range(first, first + count)
    )
    places = _backward if is_backward else _forward
    columns = [tuple(places(names, _prefix(blocks, number), row)) for number in numbers]
    return tuple(zip(*columns, strict=True))


def _forward(names: _Names, prefix: str, row: _Row) -> Iterator[Place]:
    visits = _Visits(names, prefix)
    for runs, _ in row[3]:
        gathers = visits.to(_join(prefix, runs)) if runs else []
        yield Place(f"forward of {_join(prefix, runs) or 'the model'}", tuple(gathers), -1)


def _backward(names: _Names, prefix: str, row: _Row) -> Iterator[Place]:
    """A module whose gradients never become complete here (tied, frozen) is fetched in its turn.

    The fetch is where the module's backward begins: at the first step after whatever was complete
    or began to run before.
    """
    waiting = [_join(prefix, runs) for runs, _ in row[3] if runs]
    fetched: list[list[tuple[int, ...]]] = [[] for _ in row[4]]
    recomputed, visits = _Visits(names, prefix), _Visits(names, prefix)
    begins = 0
    for position, (runs, completes) in enumerate(row[4]):
        if runs:
            fetched[position] += recomputed.to(_join(prefix, runs))
            begins = position + 1
        if completes:
            owner = _join(prefix, completes).rpartition(".")[0]
            for module in _due(waiting, owner):
                fetched[min(begins, position)] += visits.to(module)
            begins = position + 1
    for (runs, completes), gathers in zip(row[4], fetched, strict=True):
        name = _join(prefix, completes or runs)
        index = names.index.get(name, -1) if completes else -1
        yield Place(
            f"backward of {name or 'the model'}",
            tuple(gathers),
            index if index in names.trainable else -1,
        )


class _Visits:
    """Modules in the order they are visited, those on the way that own nothing included.

    Each visit lets ZeRO-3 prefetch once more. Modules without parameters that stand beside others
    (activations, dropout) cannot be told from parameter names.
    """

    def __init__(self, names: _Names, prefix: str) -> None:
        self._names = names
        self._inside: set[str] = set(_containers(prefix)) if prefix else set()

    def to(self, module: str) -> list[tuple[int, ...]]:
        """The visits up to ``module``, as parameter indices."""
        on_the_way = _containers(module)
        entered = [name for name in on_the_way if name not in self._inside]
        self._inside = set(on_the_way)
        if module.endswith(_DROPOUT_BEFORE):
            entered.append(module)
        return [*(() for _ in entered), self._names.module(module)]


def _containers(module: str) -> list[str]:
    """Modules around ``module`` that run themselves: lists of blocks and of adapters do not."""
    parts = module.split(".")
    return [
        ".".join(parts[:depth])
        for depth in range(len(parts))
        if not parts[depth].isdigit() and parts[depth] != _ADAPTER
    ]


def _due(waiting: list[str], module: str) -> list[str]:
    """Takes from ``waiting`` (forward order) what backward reaches up to ``module``."""
    if module not in waiting:
        return []
    position = waiting.index(module)
    due = waiting[position:][::-1]
    del waiting[position:]
    return due


def _prefix(blocks: str, number: int) -> str:
    return f"{blocks}.{number}" if blocks else ""


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else name or prefix
