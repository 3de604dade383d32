"""Where a profile's steps meet a model's parameters."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from zero_sizer.identity import Identity
from zero_sizer.models.spec import ModelSpec
from zero_sizer.passes.levels import MicroStep
from zero_sizer.passes.overlay import Layout, Place, Positions
from zero_sizer.zero.gather import Visit


def layout_of(spec: ModelSpec, step: MicroStep) -> Layout:
    """The places of a micro step, for the timeline.

    ``runs`` says where modules begin and have run in forward and recomputation. In backward a
    module begins just before its own backward, so before the first of its gradients is complete.
    One that owns parameters of which the model has none under its name shares a tied tensor: the
    first.
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
    first, *others = (_positions(names, row, is_backward=False) for row in rows)
    forward = (_within_model(first), *others)
    backward = tuple(_positions(names, row, is_backward=True) for row in rows)
    return Layout(forward=forward, backward=backward)


def _within_model(positions: Positions) -> Positions:
    """The first places, begun by the model itself, which no profile names."""
    (first, *blocks), *others = positions
    return ((first._replace(visits=(Visit(()), *first.visits)), *blocks), *others)


class _Names:
    """Parameter indices by name and by module."""

    def __init__(self, spec: ModelSpec) -> None:
        self.index = {tensor.name: i for i, tensor in enumerate(spec.parameters)}
        self.trainable = {i for i, tensor in enumerate(spec.parameters) if tensor.trainable}
        self._of_module: dict[str, tuple[int, ...]] = {}
        for i, tensor in enumerate(spec.parameters):
            self._of_module[tensor.module] = (*self._of_module.get(tensor.module, ()), i)
        self._around = {name for module in self._of_module for name in _containers(module)}

    def owned(self, module: str) -> tuple[int, ...]:
        """Parameters a module uses; a tied one's stand under another name, the first."""
        return self._of_module.get(module, (0,) if self.index else ())

    def visits(self, prefix: str, runs: str) -> Iterator[Visit]:
        """What a step's ``runs`` says."""
        for token in runs.split():
            if token.startswith("~"):
                yield Visit(())
            elif token.startswith("/"):
                yield Visit(self.owned(_join(prefix, token[1:])), begins=False, ends=True)
            else:
                yield Visit(self.owned(_join(prefix, token)))

    def with_backward(self, prefix: str, runs: str) -> Iterator[str]:
        """Modules that begin to run but for those around others, ``~`` before what owns nothing."""
        for token in runs.split():
            name = _join(prefix, token.lstrip("~/"))
            if token.startswith("~") and name not in self._around:
                yield f"~{name}"
            elif not token.startswith(("~", "/")):
                yield name


def _positions(names: _Names, row: _Row, *, is_backward: bool) -> Positions:
    blocks, first, count, _, _ = row
    numbers = (
        range(first + count - 1, first - 1, -1) if is_backward else range(first, first + count)
    )
    places = _backward if is_backward else _forward
    columns = [tuple(places(names, _prefix(blocks, number), row)) for number in numbers]
    return tuple(zip(*columns, strict=True))


def _forward(names: _Names, prefix: str, row: _Row) -> Iterator[Place]:
    for position, (runs, _) in enumerate(row[3]):
        entered = [Visit(())] if prefix and not position else []  # the block itself
        yield Place(_label(prefix, runs), (*entered, *names.visits(prefix, runs)), -1)


def _label(prefix: str, runs: str) -> str:
    """What a reader is told: the last that begins to run, else what has run."""
    tokens = runs.split()
    begun = [token for token in tokens if not token.startswith("/")]
    if tokens and not begun:
        return f"forward after {_join(prefix, tokens[-1][1:])}"
    return f"forward of {_join(prefix, begun[-1].lstrip('~')) if begun else prefix or 'the model'}"


def _backward(names: _Names, prefix: str, row: _Row) -> Iterator[Place]:
    """A module whose gradients never become complete here (tied, frozen) is fetched in its turn.

    The fetch is where the module's backward begins: at the first step after whatever was complete
    or began to run before.
    """
    waiting = [name for runs, _ in row[3] for name in names.with_backward(prefix, runs)]
    fetched: list[list[Visit]] = [[] for _ in row[4]]
    visits = _Visits(names, prefix)
    begins = 0
    for position, (runs, completes) in enumerate(row[4]):
        if runs:
            entered = [Visit(())] if prefix and not begins else []  # the block, recomputed
            fetched[position] += [*entered, *names.visits(prefix, runs)]
            begins = position + 1
        if completes:
            owner = _join(prefix, completes).rpartition(".")[0]
            for module in _due(waiting, owner):
                fetched[min(begins, position)] += visits.to(module)
            begins = position + 1
    for (runs, completes), met in zip(row[4], fetched, strict=True):
        label = f"backward of {_join(prefix, completes) or 'the model'}"
        if runs and not completes:
            label = _label(prefix, runs).replace("forward", "recomputation", 1)
        index = names.index.get(_join(prefix, completes), -1) if completes else -1
        yield Place(label, tuple(met), index if index in names.trainable else -1)


class _Visits:
    """Modules in the order their backward runs, those on the way that own nothing included.

    Each lets ZeRO-3 prefetch once more.
    """

    def __init__(self, names: _Names, prefix: str) -> None:
        self._names = names
        self._inside: set[str] = set(_containers(prefix)) if prefix else set()

    def to(self, module: str) -> list[Visit]:
        """The visits up to ``module``."""
        on_the_way = _containers(module)
        entered = [name for name in on_the_way if name not in self._inside]
        self._inside = set(on_the_way)
        owned = self._names.owned(module.lstrip("~")) if not module.startswith("~") else ()
        return [*(Visit(()) for _ in entered), Visit(owned, ends=True)]


def _containers(module: str) -> list[str]:
    """Modules around ``module`` that run themselves: lists of blocks and of adapters do not."""
    parts = module.lstrip("~").split(".")
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
    """The whole name of what is called ``name`` in a block; ``.`` is the block itself."""
    if name in ("", "."):
        return prefix
    return f"{prefix}.{name}" if prefix else name
