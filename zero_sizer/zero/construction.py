"""Memory of building a model under ``deepspeed.zero.Init``, in elements.

deepspeed 0.19.8 runtime/zero/partition_parameters.py:1080-1180: a module's own tensors are whole
until its constructor is over, then they are partitioned one by one; each was cast when it was made
(263-275). Then transformers fills the weights: a module's and its children's are gathered at once
(transformers 5.23 integrations/deepspeed.py, initialize_weights_zero3).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import mul

from zero_sizer.units import ceil_div, next_power_of_two
from zero_sizer.zero import secondary
from zero_sizer.zero.partition import padded


class Modules:
    """Modules in the order they are built, by kind: blocks are alike, so few differ.

    Args:
        modules: elements of each module's own tensors.
    """

    def __init__(self, modules: Iterable[Sequence[int]]) -> None:
        order = list(map(tuple, modules))
        last = {module: place for place, module in enumerate(order)}
        self._kinds = tuple(last)
        self._numels = tuple({numel for module in last for numel in module})
        before = Counter[tuple[int, ...]]()
        places = set(last.values())
        self._before: dict[tuple[int, ...], list[int]] = {}
        for place, module in enumerate(order):
            if place in places:
                self._before[module] = [before[kind] for kind in self._kinds]
            before[module] += 1

    def most_being_built(self, ranks: int, *, is_parked: bool, wider: int, group: int = 0) -> int:
        """The most that lies on the GPU while they are built, partitions included.

        What was built stays, so of each kind the last one counts.

        Args:
            ranks: ranks that partitions are cut for.
            is_parked: partitions lie elsewhere.
            wider: elements' worth of one element before its cast; 0 where none is cast.
            group: ranks that secondary partitions are cut for (hpZ); 0 where there are none.
        """
        parts = {n: 0 if is_parked else partition_numel(n, ranks, group) for n in self._numels}
        found = [_of_module(kind, parts, wider) for kind in self._kinds]
        held = [left for _, left in found]
        rows = zip(self._kinds, found, strict=True)
        totals = [most + sum(map(mul, held, self._before[kind])) for kind, (most, _) in rows]
        return max(totals, default=0)


def _of_module(module: tuple[int, ...], parts: Mapping[int, int], wider: int) -> tuple[int, int]:
    """The most that a module takes while it is built, and what is left of it."""
    most = whole = held = 0
    for numel in module:
        most = max(most, whole + numel * (1 + wider))
        whole += numel
    for numel in module:
        most = max(most, held + whole + parts[numel])
        whole, held = whole - numel, held + parts[numel]
    return most, held


def most_being_cut(numels: Sequence[int], itemsizes: Sequence[int], ranks: int, group: int) -> int:
    """The most bytes that partitions add to a whole model while its tensors are cut one by one."""
    most = held = 0
    for numel, itemsize in zip(numels, itemsizes, strict=True):
        held += partition_numel(numel, ranks, group) * itemsize
        most = max(most, held)
        held -= numel * itemsize
    return most


def most_being_pinned(parts: Iterable[int]) -> int:
    """The most bytes on the host while partitions are made there and pinned one by one.

    Pinning copies (partition_parameters.py:1842), rounded up as the pinned allocator does.
    """
    most = held = 0
    for part in parts:
        held += next_power_of_two(part)
        most = max(most, held + part)
    return most


def beyond_pinned(last_first: Iterable[int], largest: int) -> int:
    """The most bytes at such a time beyond those that are there when all are pinned.

    Args:
        last_first: bytes of each partition, the one that is pinned last first.
        largest: no partition has more.
    """
    most = later = 0
    for part in last_first:
        most = max(most, part - later)
        later += next_power_of_two(part)
        if largest - later <= most:
            break
    return most


def partition_numel(numel: int, ranks: int, group: int) -> int:
    """Elements of a tensor's partition, and of its secondary one."""
    return ceil_div(numel, ranks) + (sum(secondary.numels((numel,), ranks, group)) if group else 0)


def most_being_filled(groups: Collection[Sequence[int]], ranks: int, *, is_parked: bool) -> int:
    """The most that is gathered while weights are filled, partitions on their way included.

    Args:
        groups: elements of the tensors that are gathered together.
        ranks: ranks that they are gathered from; one rank's lie there already.
        is_parked: partitions lie elsewhere and come first.
    """
    totals = (
        sum([padded(n, ranks) + (ceil_div(n, ranks) if is_parked else 0) for n in group])
        if ranks > 1 or len(group) == 1  # one tensor is copied even from the only rank
        else sum(group) * is_parked
        for group in groups
    )
    return max(totals, default=0)
