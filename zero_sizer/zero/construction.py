"""Memory of building a model under ``deepspeed.zero.Init``, in elements.

deepspeed 0.19.8 runtime/zero/partition_parameters.py:1080-1180: a module's own tensors are whole
until its constructor is over, then they are partitioned one by one; each was cast when it was made
(263-275). Then transformers fills the weights: a module's and its children's are gathered at once
(transformers 5.23 integrations/deepspeed.py, initialize_weights_zero3).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from zero_sizer.units import ceil_div, next_power_of_two
from zero_sizer.zero import secondary
from zero_sizer.zero.partition import padded


def most_being_built(
    modules: Sequence[Sequence[int]], ranks: int, *, is_parked: bool, wider: int, group: int = 0
) -> int:
    """The most that lies on the GPU while modules are built, partitions included.

    Args:
        modules: elements of each module's own tensors, in the order they are built.
        ranks: ranks that partitions are cut for.
        is_parked: partitions lie elsewhere.
        wider: elements' worth of one element before its cast; 0 where none is cast.
        group: ranks that secondary partitions are cut for (hpZ); 0 where there are none.
    """
    parts: dict[int, int] = {}  # blocks are alike, so few sizes differ
    kinds: dict[tuple[int, ...], tuple[int, int]] = {}
    most = held = 0
    for module in map(tuple, modules):
        kind = kinds.get(module)
        if kind is None:
            for numel in module:
                if numel not in parts:
                    parts[numel] = 0 if is_parked else partition_numel(numel, ranks, group)
            kind = kinds[module] = _of_module(module, parts, wider)
        most = max(most, held + kind[0])
        held += kind[1]
    return most


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
