"""Notes every storage of a traced step: who made it, how large it is, when it goes."""

import weakref
from typing import Any, NamedTuple


class Made(NamedTuple):
    """A storage appears.

    Attributes:
        storage: its number, in order of appearance.
        op: the operator that made it.
    """

    storage: int
    op: str


class Gone(NamedTuple):
    """Storage number ``storage`` is freed."""

    storage: int


class Mark(NamedTuple):
    """The step reaches a place.

    Attributes:
        kind: ``enter``/``leave`` (a block), ``module``/``ends`` (any other module is about to run,
            has run), ``gradient`` (a parameter's is complete), ``leaves``/``comes`` (the gradient
            of a block's input or output is complete), ``returns`` (that of the output of a module
            outside of blocks), or ``loss``, ``backward``, ``end``.
        name: qualified name of the module or parameter.
        storage: of the gradient, where one is meant; else -1.
        is_same: it is the very tensor of the mark before.
    """

    kind: str
    name: str
    storage: int = -1
    is_same: bool = False


_BEFORE = -1  # stands for the storages that were there before the step

Event = Made | Gone | Mark


def in_order_of_backward(events: list[Event]) -> list[Event]:
    """Modules whose output is the same tensor, the outermost first, and a block after those.

    Hooks on one tensor run in the order of the forward. What an identity behind a block returns is
    the block's output (InternVL's tower).
    """
    found = list(events)
    for index in range(1, len(found)):
        one, other = found[index - 1], found[index]
        if isinstance(one, Mark) and isinstance(other, Mark) and _is_behind(one, other):
            found[index - 1] = other._replace(is_same=one.is_same)
            found[index] = one._replace(is_same=True)
    start = 0
    for index in range(1, len(found) + 1):
        if index == len(found) or not _same_gradient(found[index - 1], found[index]):
            found[start:index] = found[start:index][::-1]
            start = index
    return found


def _is_behind(one: Mark, other: Mark) -> bool:
    """Whether a block's output is handed on as it is by a module outside of the block."""
    is_handed_on = one.kind == "comes" and other.kind == "returns" and other.is_same
    return is_handed_on and not other.name.startswith(f"{one.name}.")


def _same_gradient(one: Event, other: Event) -> bool:
    return (
        isinstance(one, Mark)
        and isinstance(other, Mark)
        and one.kind == other.kind == "returns"
        and other.is_same
    )


class Recorder:
    """Takes the place of the simulation's tracker: storages on the GPU only, nothing rounded.

    Attributes:
        events: what happened so far.
        sizes: bytes of each storage.
        op: the operator now running.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.sizes: list[int] = []
        self.flops: list[tuple[int, int]] = []
        self.op = ""
        self.on = False
        self._numbers: dict[int, tuple[int, Any]] = {}
        self._step = 0
        self._marked = 0  # address of the gradient of the last mark

    def begin(self) -> None:
        """A step begins: what is left of the one before was there before this one."""
        self.events, self.sizes, self.flops = [], [], []
        self._numbers = {
            address: (_BEFORE, reference) for address, (_, reference) in self._numbers.items()
        }
        self._step += 1

    def multiplied(self, thread: str) -> None:
        """A profile counts no workspace of cuBLAS's: it is the GPU's, not the model's."""

    def watch(self, storage: Any, device: str) -> None:
        """Notes a storage when it is first seen; while off, only that it was there before."""
        address = storage._cdata
        if device != "gpu" or address in self._numbers:
            return
        number = len(self.sizes) if self.on else _BEFORE
        if self.on:
            self.sizes.append(storage.nbytes())
            self.events.append(Made(number, self.op))
        step = self._step
        reference = weakref.ref(storage, lambda _: self._gone(address, number, step))
        self._numbers[address] = (number, reference)

    def resized(self, storage: Any) -> None:
        """Nothing that a forward or backward runs resizes what it counts."""

    def is_pinned(self, storage: Any) -> bool:
        """No tensor of a traced step is page-locked."""
        return False

    def number(self, tensor: Any) -> int:
        """The number of a tensor's storage; -1 where it was made before recording."""
        return self._numbers.get(tensor.untyped_storage()._cdata, (_BEFORE, None))[0]

    def mark(self, kind: str, name: str = "", gradient: Any = None) -> None:
        """The step reaches a place, where ``gradient`` is complete."""
        if not self.on:
            return
        number = -1 if gradient is None else self.number(gradient)
        address = 0 if gradient is None else gradient._cdata
        is_same = address == self._marked != 0 and isinstance(self.events[-1], Mark)
        self._marked = address
        self.events.append(Mark(kind, name, number, is_same))

    def leave_last_block(self) -> None:
        """The backward of the block that came last is over: its input may need no gradient."""
        marks = [event for event in self.events if isinstance(event, Mark)]
        left = {mark.name for mark in marks if mark.kind == "leaves"}
        for mark in marks[::-1]:
            if mark.kind == "comes":
                if mark.name not in left:
                    self.mark("leaves", mark.name)
                return

    def count_flops(self, count: int) -> None:
        """``count`` floating-point operations run now."""
        if self.on and count:
            self.flops.append((len(self.events), count))

    def _gone(self, address: int, number: int, step: int) -> None:
        number = number if step == self._step else _BEFORE
        if self._numbers.get(address, (_BEFORE, None))[0] == number:
            self._numbers.pop(address, None)
        if number != _BEFORE:
            self.events.append(Gone(number))
