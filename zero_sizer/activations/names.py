"""Names of modules and parameters, as a profile's words mean them in a model."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.activations.execution import NEVER_RUNS, runs_with
from zero_sizer.activations.levels import MicroStep
from zero_sizer.errors import UnsupportedError
from zero_sizer.models.changes.lora import lookups, tied_modules
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity
from zero_sizer.zero.reuse import Visit

_ADAPTER = "default"  # what peft's lists of adapters call theirs
# What a module asks a child for: DeepSpeed gathers it with the module from then on
# (runtime/zero/parameter_offload.py, ZeROOrderedDict); transformers 5.23 T5DenseActDense.forward
_ASKED = {"DenseReluDense": "wo.weight"}
# peft 0.21.2 tuners/lora/layer.py, Linear.forward: it casts its input to the dtype of A's weight
_ASKED_BY_ADAPTED = f".lora_A.{_ADAPTER}.weight"

_PRODUCTS = ("Linear", "Conv1D")  # ends of classes' names
_Row = tuple[str, int, int, tuple[tuple[str, str], ...]]


class UnknownNameError(UnsupportedError):
    """A step names a module or parameter that the model has not."""


class Word(NamedTuple):
    """One word of a step's ``runs``.

    Attributes:
        module: qualified name; that of a leaf for what is inside one.
        begins: it begins to run; else it has run, or its backward begins.
        returns: its backward begins.
        owns: it owns parameters, or is around some.
    """

    module: str
    begins: bool
    owns: bool
    returns: bool = False


class Names:
    """Parameter indices by name and by module.

    Args:
        spec: whose.
        leaves: modules taken as a whole.
        asked: parameters that the model itself asks its modules for.
    """

    def __init__(
        self, spec: ModelSpec, leaves: tuple[str, ...], asked: tuple[int, ...] = ()
    ) -> None:
        self.index = {tensor.name: i for i, tensor in enumerate(spec.parameters)}
        self.trainable = {i for i, tensor in enumerate(spec.parameters) if tensor.trainable}
        self.stacked = {i for i, tensor in enumerate(spec.parameters) if tensor.is_stacked}
        self._tied = tied_modules(spec)
        self._lookups = lookups(spec)
        self._products = {
            tensor.module
            for tensor in spec.parameters
            if tensor.module_type.endswith(_PRODUCTS) and tensor.module_type != NEVER_RUNS
        }
        self._has_dropout = spec.arch.dropout > 0
        self._leaves = frozenset(leaves)
        self._asked = asked
        self._asks = frozenset(asked)
        self._shared: dict[str, tuple[int, ...]] = {}
        self._held: dict[str, bool] = {}
        self._owners = tuple(map(runs_with, spec.parameters))
        self._subtrees: dict[str, tuple[int, ...]] = {}
        self._of_module: dict[str, tuple[int, ...]] = {}
        for i, tensor in enumerate(spec.parameters):
            module = self.unit(runs_with(tensor))
            self._of_module[module] = (*self._of_module.get(module, ()), i)
        self._adapters = {
            name.removesuffix(_ASKED_BY_ADAPTED): i
            for name, i in self.index.items()
            if name.endswith(_ASKED_BY_ADAPTED)
        }
        self._around = {name for module in self._of_module for name in containers(module)}

    def unit(self, module: str) -> str:
        """The leaf that ``module`` is inside of or is, else ``module``."""
        if not self._leaves:
            return module
        around = (*containers(module), module)
        return next((name for name in around if name in self._leaves), module)

    def is_leaf(self, module: str) -> bool:
        """True if ``module`` is taken as a whole."""
        return module in self._leaves

    def drops(self, module: str) -> bool:
        """True if ``module`` is a dropout that saves what it dropped."""
        return self._has_dropout and "drop" in module.rpartition(".")[2]

    def is_lookup(self, module: str) -> bool:
        """True if ``module`` is handed indices, which have no gradient."""
        return module in self._lookups

    def owned(self, module: str) -> tuple[int, ...]:
        """Parameters a module uses; a tied one's stand under another name.

        Raises:
            UnknownNameError: the model has no such module.
        """
        found = self._of_module.get(module)
        if found is not None:
            return found
        if module in self._tied:
            return (self.index.get(self._tied[module], 0),)
        raise UnknownNameError(f"no parameters of {module!r}: the profile is another model's")

    def parameter(self, name: str) -> int:
        """The parameter of that name.

        Raises:
            UnknownNameError: the model has none.
        """
        found = self.index.get(name)
        if found is None:
            raise UnknownNameError(f"no parameter {name!r}: the profile is another model's")
        return found

    def words(self, prefix: str, steps: Iterable[str]) -> list[list[Word]]:
        """Words in the ``runs`` of a block's steps; a leaf begins and ends once."""
        found = [[self._word(prefix, token) for token in runs.split()] for runs in steps]
        if not self._leaves:
            return found
        met: set[str] = set()  # leaves of which something began or ended later
        for words in reversed(found):
            last = [w for w in reversed(words) if not self._is_within(w, met)]
            words[:] = last[::-1]
        begun: set[tuple[str, bool]] = set()
        return [[w for w in words if self._is_first(w, begun)] for words in found]

    def _word(self, prefix: str, token: str) -> Word:
        name, begins, owns, returns = _read(token)
        module = self.unit(join(prefix, name))
        return Word(module, begins, owns or self.is_leaf(module), returns)

    def _is_within(self, word: Word, met: set[str]) -> bool:
        """Whether something ends that is not the last to run of its leaf."""
        if not self.is_leaf(word.module) or word.returns:
            return False
        is_last = word.module not in met
        met.add(word.module)
        return not (is_last or word.begins)

    def _is_first(self, word: Word, begun: set[tuple[str, bool]]) -> bool:
        """Whether a leaf's word is the first to begin, or to return; of others every one is."""
        if not self.is_leaf(word.module) or not (word.begins or word.returns):
            return True
        is_new = (word.module, word.returns) not in begun
        begun.add((word.module, word.returns))
        return is_new

    def enter(self, block: str) -> list[Visit]:
        """A block begins; a leaf and what is outside of blocks does with its first module."""
        return [self.container(block)] if block and self.unit(block) not in self._leaves else []

    def container(self, module: str, *, ends: bool = False) -> Visit:
        """A module that is around others, or owns nothing, begins to run, or has run too.

        One around others holds what it owns and asks for until ``leave``, the model to its end.
        """
        ends = ends and module not in self._around
        return Visit(self.shared(module), ends=ends, inside=self._inside(module))

    def leave(self, module: str) -> list[Visit]:
        """A module that is around others has run."""
        shared = self.shared(module) if module in self._around else ()
        return [Visit(shared, begins=False, ends=True)] if shared else []

    def finish(self, module: str) -> list[Visit]:
        """A layer has all its gradients: one product makes them and that of its input."""
        if module not in self._products or self.is_leaf(module) or self.is_held(module):
            return []
        return [self.module(module, begins=False, ends=True)]

    def is_held(self, module: str) -> bool:
        """True if a module around ``module`` has asked for its parameters."""
        found = self._held.get(module)
        if found is None:
            held = {i for name in containers(module) for i in self.shared(name)}
            found = self._held[module] = not held.isdisjoint(self.owned(module))
        return found

    def shared(self, module: str) -> tuple[int, ...]:
        """Parameters of a module around others: its own, and those of others that it asks for."""
        found = self._shared.get(module)
        if found is None:
            found = self._shared[module] = self._shared_by(module)
        return found

    def _shared_by(self, module: str) -> tuple[int, ...]:
        asked = _ASKED.get(module.rpartition(".")[2], "")
        index = self.index.get(f"{module}.{asked}") if asked else self._adapters.get(module)
        own = self._of_module.get(module, ())
        if not module:
            own = (*own, *self._asked)
        return own if index is None else (*own, index)

    def module(self, module: str, *, begins: bool, ends: bool) -> Visit:
        """A module that owns parameters, or a leaf."""
        owned = self.owned(module)
        ends = ends and not self._is_asked(module)
        if not self._leaves:
            return Visit(owned, begins, ends)
        direct = tuple(i for i in owned if self._owners[i] == module)
        return Visit(owned, begins, ends, direct if self.is_leaf(module) else None)

    def _is_asked(self, module: str) -> bool:
        """Whether the model asks for something of a module, which then stays."""
        return bool(self._asks) and not self._asks.isdisjoint(self.owned(module))

    def _inside(self, module: str) -> tuple[int, ...] | None:
        if not self._leaves:
            return None
        if module not in self._subtrees:
            at = f"{module}." if module else ""
            owners = enumerate(self._owners)
            self._subtrees[module] = tuple(i for i, o in owners if f"{o}.".startswith(at))
        return self._subtrees[module]

    def visits(self, words: Iterable[Word]) -> Iterator[Visit]:
        """Visits that the words name."""
        for word in words:
            if word.owns:
                if word.begins or not self._is_asked(word.module):
                    yield self.module(word.module, begins=word.begins, ends=not word.begins)
            else:
                yield self.container(word.module)

    def with_backward(self, prefix: str, steps: Iterable[str]) -> Iterator[Word]:
        """Modules that begin to run in a forward, but for those around others."""
        for words in self.words(prefix, steps):
            yield from (w for w in words if w.begins and (w.owns or w.module not in self._around))


@lru_cache(maxsize=4096)
def _read(token: str) -> tuple[str, bool, bool, bool]:
    """A word's name in its block, and what ``Word`` has: begins, owns (leaves apart), returns."""
    owns, returns = "~" not in token[:2], token.startswith("^")
    return token.lstrip("~/^"), not token.startswith(("/", "^")), owns, returns


def check(spec: ModelSpec, step: MicroStep) -> None:
    """Every module that owns parameters, and every gradient, is the model's.

    Raises:
        UnknownNameError: one is not; such a step says nothing about this model.
    """
    rows = tuple(
        (part.blocks, part.first, part.count, section.labels)
        for part in step.parts
        for section in (part.forward, part.backward)
    )
    _check(Identity(spec), rows)


@lru_cache(maxsize=256)
def _check(spec: Identity, rows: tuple[_Row, ...]) -> None:
    known = {tensor.name for tensor in spec.of.parameters}
    modules = {name.rpartition(".")[0] for name in known} | tied_modules(spec.of).keys()
    for blocks, first, count, labels in rows:
        for number in (first, first + count - 1):
            prefix = f"{blocks}.{number}" if blocks else ""
            for runs, completes in labels:
                owners = (t.lstrip("/^") for t in runs.split() if "~" not in t[:2])
                for module in (join(prefix, owner) for owner in owners):
                    if module not in modules:
                        raise UnknownNameError(f"the model has no {module}")
                if completes and join(prefix, completes) not in known:
                    raise UnknownNameError(f"the model has no {join(prefix, completes)}")


@lru_cache(maxsize=4096)
def containers(module: str) -> tuple[str, ...]:
    """Modules around ``module`` that run themselves: lists of blocks and of adapters do not."""
    parts = module.split(".")
    return tuple(
        ".".join(parts[:depth])
        for depth in range(len(parts))
        if not parts[depth].isdigit() and parts[depth] != _ADAPTER
    )


def join(prefix: str, name: str) -> str:
    """The whole name of what is called ``name`` in a block; ``.`` is the block itself."""
    if name in ("", "."):
        return prefix
    return f"{prefix}.{name}" if prefix else name
