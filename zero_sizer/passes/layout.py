"""Where a profile's steps meet a model's parameters."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.identity import Identity
from zero_sizer.models.spec import ModelSpec
from zero_sizer.passes.levels import MicroStep
from zero_sizer.passes.overlay import Layout, Place, Positions
from zero_sizer.zero.gather import Visit


def layout_of(spec: ModelSpec, step: MicroStep, leaves: tuple[str, ...]) -> Layout:
    """The places of a micro step, for the timeline; ``leaves`` are taken as a whole.

    ``runs`` says where modules begin and have run in forward and recomputation. In backward a
    module begins just before its own backward, so before the first of its gradients is complete.
    One that owns parameters of which the model has none under its name shares a tied tensor: the
    first.
    """
    key = tuple(
        (part.blocks, part.first, part.count, part.forward.labels, part.backward.labels)
        for part in step.parts
    )
    return _layout(Identity(spec), key, leaves)


def depths_of(spec: ModelSpec, stacks: Iterable[str]) -> dict[str, int]:
    """How many blocks the model has in each list of blocks; one that was cut has fewer."""
    return {stack: _depth(Identity(spec), stack) for stack in stacks}


_PASSED = Visit((), begins=False)
_ADAPTER = "default"  # what peft's lists of adapters call theirs

_Labels = tuple[tuple[str, str], ...]
_Row = tuple[str, int, int, _Labels, _Labels]


@lru_cache(maxsize=64)
def _depth(spec: Identity, stack: str) -> int:
    prefix = f"{stack}."
    names = (tensor.name for tensor in spec.of.parameters)
    return len({n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)})


@lru_cache(maxsize=64)
def _layout(spec: Identity, rows: tuple[_Row, ...], leaves: tuple[str, ...]) -> Layout:
    names = _Names(spec.of, leaves)
    first, *others = (_positions(names, row, is_backward=False) for row in rows)
    forward = (_within_model(names, first), *others)
    backward = tuple(_positions(names, row, is_backward=True) for row in rows)
    return Layout(forward=forward, backward=backward)


class _Word(NamedTuple):
    """One word of a step's ``runs``.

    Attributes:
        module: qualified name; that of a leaf for what is inside one.
        begins: it begins to run; else it has run.
        owns: it owns parameters, or is around some.
    """

    module: str
    begins: bool
    owns: bool


class _Names:
    """Parameter indices by name and by module."""

    def __init__(self, spec: ModelSpec, leaves: tuple[str, ...]) -> None:
        self.index = {tensor.name: i for i, tensor in enumerate(spec.parameters)}
        self.trainable = {i for i, tensor in enumerate(spec.parameters) if tensor.trainable}
        self.stacked = {i for i, tensor in enumerate(spec.parameters) if tensor.is_stacked}
        self._leaves = frozenset(leaves)
        self._owners = tuple(tensor.module for tensor in spec.parameters)
        self._subtrees: dict[str, tuple[int, ...]] = {}
        self._of_module: dict[str, tuple[int, ...]] = {}
        for i, tensor in enumerate(spec.parameters):
            module = self.unit(tensor.module)
            self._of_module[module] = (*self._of_module.get(module, ()), i)
        self._around = {name for module in self._of_module for name in _containers(module)}

    def unit(self, module: str) -> str:
        """The leaf that ``module`` is inside of or is, else ``module``."""
        if not self._leaves:
            return module
        around = (*_containers(module), module)
        return next((name for name in around if name in self._leaves), module)

    def is_leaf(self, module: str) -> bool:
        """Whether ``module`` is taken as a whole."""
        return module in self._leaves

    def owned(self, module: str) -> tuple[int, ...]:
        """Parameters a module uses; a tied one's stand under another name, the first."""
        return self._of_module.get(module, (0,) if self.index else ())

    def words(self, prefix: str, steps: Iterable[str]) -> list[list[_Word]]:
        """What the ``runs`` of a block's steps say; a leaf begins and ends once."""
        found = [[self._word(prefix, token) for token in runs.split()] for runs in steps]
        if not self._leaves:
            return found
        begun: set[str] = set()
        kept = [[w for w in words if self._is_first(w, begun)] for words in found]
        ended: set[str] = set()
        for words in reversed(kept):
            last = [w for w in reversed(words) if self._is_first(w, ended, ends=True)]
            words[:] = last[::-1]
        return kept

    def _word(self, prefix: str, token: str) -> _Word:
        module = self.unit(_join(prefix, token.lstrip("~/")))
        owns = not token.startswith("~") or self.is_leaf(module)
        return _Word(module, not token.startswith("/"), owns)

    def _is_first(self, word: _Word, seen: set[str], *, ends: bool = False) -> bool:
        """Whether a leaf's word is the first of its kind; of others every one is."""
        if not self.is_leaf(word.module) or word.begins is ends:
            return True
        is_new = word.module not in seen
        seen.add(word.module)
        return is_new

    def enter(self, block: str) -> list[Visit]:
        """A block begins; a leaf and what is outside of blocks does with its first module."""
        return [self.container(block)] if block and self.unit(block) not in self._leaves else []

    def container(self, module: str, *, ends: bool = False) -> Visit:
        """A module that owns no parameters begins to run, or has run too."""
        return Visit((), ends=ends, inside=self._inside(module))

    def module(self, module: str, *, begins: bool, ends: bool) -> Visit:
        """A module that owns parameters, or a leaf."""
        owned = self.owned(module)
        if not self._leaves:
            return Visit(owned, begins, ends)
        direct = tuple(i for i in owned if self._owners[i] == module)
        return Visit(owned, begins, ends, direct if self.is_leaf(module) else None)

    def _inside(self, module: str) -> tuple[int, ...] | None:
        if not self._leaves:
            return None
        if module not in self._subtrees:
            at = f"{module}." if module else ""
            owners = enumerate(self._owners)
            self._subtrees[module] = tuple(i for i, o in owners if f"{o}.".startswith(at))
        return self._subtrees[module]

    def visits(self, words: Iterable[_Word]) -> Iterator[Visit]:
        """What the words say."""
        for word in words:
            if word.owns:
                yield self.module(word.module, begins=word.begins, ends=not word.begins)
            else:
                yield self.container(word.module)

    def with_backward(self, words: Iterable[_Word]) -> Iterator[_Word]:
        """Modules that begin to run but for those around others."""
        return (w for w in words if w.begins and (w.owns or w.module not in self._around))


def _within_model(names: _Names, positions: Positions) -> Positions:
    """The first places, begun by the model itself, which no profile names."""
    (first, *blocks), *others = positions
    return ((first._replace(visits=(names.container(""), *first.visits)), *blocks), *others)


def _positions(names: _Names, row: _Row, *, is_backward: bool) -> Positions:
    blocks, first, count, _, _ = row
    numbers = (
        range(first + count - 1, first - 1, -1) if is_backward else range(first, first + count)
    )
    places = _backward if is_backward else _forward
    columns = [tuple(places(names, _prefix(blocks, number), row)) for number in numbers]
    return tuple(zip(*columns, strict=True))


def _forward(names: _Names, prefix: str, row: _Row) -> Iterator[Place]:
    found = names.words(prefix, (runs for runs, _ in row[3]))
    for position, ((runs, _), words) in enumerate(zip(row[3], found, strict=True)):
        entered = [] if position else names.enter(prefix)
        yield Place(_label(prefix, runs), (*entered, *names.visits(words)), -1, ())


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
    forward = names.words(prefix, (runs for runs, _ in row[3]))
    waiting = [word for words in forward for word in names.with_backward(words)]
    recomputed = names.words(prefix, (runs for runs, _ in row[4]))
    gradients = _Gradients(names, [_join(prefix, name) for _, name in row[4] if name])
    fetched: list[list[Visit]] = [[] for _ in row[4]]
    visits = _Visits(names, prefix)
    begins = 0
    for position, (runs, completes) in enumerate(row[4]):
        if runs:
            entered = [] if begins else names.enter(prefix)
            fetched[position] += [*entered, *names.visits(recomputed[position])]
            begins = position + 1
        if completes:
            owner = names.unit(_join(prefix, completes).rpartition(".")[0])
            for word in _due(waiting, owner):
                fetched[min(begins, position)] += visits.to(word)
            begins = position + 1
    passed: list[Visit] = []
    for (runs, completes), met in zip(row[4], fetched, strict=True):
        label = f"backward of {_join(prefix, completes) or 'the model'}"
        if runs and not completes:
            label = _label(prefix, runs).replace("forward", "recomputation", 1)
        index, reduces = gradients.of(_join(prefix, completes) if completes else "")
        yield Place(label, (*passed, *met), index, reduces)
        passed = [_PASSED._replace(passed=(index,))] if index in names.stacked else []


class _Gradients:
    """Which gradients become complete in a block, and whose hooks run then."""

    def __init__(self, names: _Names, completed: Sequence[str]) -> None:
        self._names = names
        self._last = {names.unit(name.rpartition(".")[0]): name for name in completed}

    def of(self, name: str) -> tuple[int, tuple[int, ...]]:
        """The gradient of ``name``, -1 where there is none; a leaf's hooks run after its last."""
        names = self._names
        index = names.index.get(name, -1)
        if index not in names.trainable:
            return -1, ()
        unit = names.unit(name.rpartition(".")[0])
        if not names.is_leaf(unit):
            return index, (index,)
        is_last = self._last[unit] == name
        return index, tuple(i for i in names.owned(unit) if is_last and i in names.trainable)


class _Visits:
    """Modules in the order their backward runs, those on the way that own nothing included.

    Each lets ZeRO-3 prefetch once more.
    """

    def __init__(self, names: _Names, prefix: str) -> None:
        self._names = names
        self._inside: set[str] = set(_containers(prefix)) if prefix else set()

    def to(self, word: _Word) -> list[Visit]:
        """The visits up to a module."""
        on_the_way = _containers(word.module)
        entered = [name for name in on_the_way if name not in self._inside]
        self._inside = set(on_the_way)
        names = self._names
        if word.owns:
            last = names.module(word.module, begins=True, ends=True)
        else:
            last = names.container(word.module, ends=True)
        return [*map(names.container, entered), last]


def _containers(module: str) -> list[str]:
    """Modules around ``module`` that run themselves: lists of blocks and of adapters do not."""
    parts = module.split(".")
    return [
        ".".join(parts[:depth])
        for depth in range(len(parts))
        if not parts[depth].isdigit() and parts[depth] != _ADAPTER
    ]


def _due(waiting: list[_Word], module: str) -> list[_Word]:
    """Takes from ``waiting`` (forward order) what backward reaches up to ``module``."""
    for position, word in enumerate(waiting):
        if word.owns and word.module == module:
            due = waiting[position:][::-1]
            del waiting[position:]
            return due
    return []


def _prefix(blocks: str, number: int) -> str:
    return f"{blocks}.{number}" if blocks else ""


def _join(prefix: str, name: str) -> str:
    """The whole name of what is called ``name`` in a block; ``.`` is the block itself."""
    if name in ("", "."):
        return prefix
    return f"{prefix}.{name}" if prefix else name
