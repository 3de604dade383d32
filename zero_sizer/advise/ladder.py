"""Settings of a strategy: buffers, windows, pinning and sub-groups as config keys.

They are in two ladders, since they hardly meet: what a rung of one saves on the GPU, the other's
do not change. The first rung of each is what the user wrote, DeepSpeed's defaults otherwise; each
further one needs less memory and costs time, or costs nothing that the step-time model knows.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from zero_sizer.advise.strategy import Strategy
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass

_FIELDS = {
    "overlap_comm": "overlap_comm",
    "reduce_bucket_size": "reduce_bucket_size",
    "stage3_prefetch_bucket_size": "prefetch_bucket_size",
    "stage3_max_live_parameters": "max_live_parameters",
    "stage3_max_reuse_distance": "max_reuse_distance",
    "stage3_param_persistence_threshold": "persistence_threshold",
    "sub_group_size": "sub_group_size",
    "offload_optimizer.pin_memory": "optimizer_pinned",
    "offload_optimizer.ratio": "optimizer_ratio",
    "offload_optimizer.buffer_count": "optimizer_buffer_count",
    "offload_param.pin_memory": "param_pinned",
    "offload_param.buffer_count": "param_buffer_count",
    "offload_param.buffer_size": "param_buffer_size",
}
"""Config key under ``zero_optimization`` -> field of the plan that it decides alone."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Config keys under ``zero_optimization``, dotted below a section.

    Attributes:
        keys: what the config says.
        values: what the plan's fields become.
    """

    keys: Mapping[str, Any]
    values: Mapping[str, Any]

    @cached_property
    def name(self) -> str:
        """All keys in a line; equal settings are called the same."""
        return ", ".join(f"{key}: {self.keys[key]}" for key in sorted(self.keys))

    def without(self, key: str) -> "Tuning":
        """All but one key."""
        return setting({name: value for name, value in self.keys.items() if name != key})

    def __add__(self, other: "Tuning") -> "Tuning":
        return Tuning(keys={**self.keys, **other.keys}, values={**self.values, **other.values})


def setting(keys: Mapping[str, Any]) -> Tuning:
    """A setting from its config keys."""
    return Tuning(keys=keys, values={_FIELDS[name]: value for name, value in keys.items()})


_PREFETCH, _LIVE = "stage3_prefetch_bucket_size", "stage3_max_live_parameters"
_REUSE, _PERSIST = "stage3_max_reuse_distance", "stage3_param_persistence_threshold"
_PIN_OPTIMIZER, _PIN_PARAM = "offload_optimizer.pin_memory", "offload_param.pin_memory"

DEFAULT_BUCKET = 500_000_000
_BUCKETS = (100_000_000, 20_000_000)
_USUAL_WINDOW, _STEP_OF_WINDOWS = 500_000_000, 100_000_000
_PARTS = (1, 0.75, 0.5)  # of the weights, kept gathered
_NARROWER = (200_000_000, *_BUCKETS)  # buckets that may leave room for them
_NOTHING_KEPT = {_LIVE: 100_000_000, _REUSE: 0}
_WINDOWS: tuple[dict[str, int], ...] = (
    {},
    {_LIVE: 300_000_000},
    {_PREFETCH: 0},
    _NOTHING_KEPT,
    {_PREFETCH: 0, **_NOTHING_KEPT},
)
# A swapped weight holds one of few buffers as long as it is gathered, and when none is left the
# swapper gives up (partitioned_param_swapper.py:312): one module's weights at a time, in as many
# buffers as that takes.
_SWAPPED_WINDOWS: tuple[dict[str, int], ...] = ({_PREFETCH: 0, **_NOTHING_KEPT},)
_SUB_GROUPS = (100_000_000, 25_000_000)
_WHOLE_SUB_GROUP = 1_000_000_000  # DeepSpeed's default
_MANY = 16 * _SUB_GROUPS[0]  # elements that the larger sub-groups cut finely enough
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)  # share of the states that leaves the GPU


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Settings worth trying for one strategy.

    Attributes:
        host: pinning, sub-groups and swap buffers, the one to prefer first.
        partial: the same with a share of the optimizer's states left on the GPU, by share, the
            largest first.
        gpu: buckets and windows, the fastest first, as groups that differ in the bucket alone.
        last: saves little, and is for jobs that nothing else makes fit.
        is_ordered: a smaller bucket always needs less. Not at stages 1 and 2, where a gradient
            larger than the bucket stays.
    """

    host: tuple[Tuning, ...]
    gpu: tuple[tuple[Tuning, ...], ...]
    partial: tuple[tuple[Tuning, ...], ...] = ()
    last: tuple[Tuning, ...] = ()
    is_ordered: bool = True

    @property
    def fastest(self) -> Tuning:
        """The first rung for the GPU."""
        return self.gpu[0][0]

    def frugal_of(self, group: tuple[Tuning, ...]) -> tuple[Tuning, ...]:
        """Tunings of a group among which is the one that needs least of a GPU."""
        return group[-1:] if self.is_ordered else group

    @property
    def corners(self) -> tuple[Tuning, ...]:
        """Frugal tunings of all groups but the last."""
        return self.frugal_of(self.gpu[-1])

    def both(self, host: Tuning, gpu: Tuning) -> Tuning:
        """A rung of each, the same object every time."""
        return self._both[id(host), id(gpu)]

    @cached_property
    def _both(self) -> dict[tuple[int, int], Tuning]:
        rungs = [*chain.from_iterable(self.gpu), *self.last]
        return {(id(h), id(g)): h + g for h in self.hosts for g in rungs}

    @cached_property
    def hosts(self) -> tuple[Tuning, ...]:
        """All rungs for the host, partial ones last."""
        return (*self.host, *chain.from_iterable(self.partial))

    @cached_property
    def every(self) -> tuple[Tuning, ...]:
        """Every rung of one with every rung of the other."""
        return tuple(self._both.values())

    @cached_property
    def frugal(self) -> tuple[Tuning, ...]:
        """Settings among which are those that need least of each device."""
        least = (*self.corners, *self.last)
        return tuple(self.both(host, gpu) for host in self.hosts for gpu in least)


class Swap(NamedTuple):
    """Frugal ends of what is swapped to NVMe; 0: no more frugal than it is.

    Attributes:
        weights: elements of the smallest buffer for weights.
        states: the fewest buffers for optimizer states.
        modules: buffers for weights, where one module's need more than there are.
    """

    weights: int = 0
    states: int = 0
    modules: int = 0


NO_SWAP = Swap()


def ladder_of(
    strategy: Strategy, largest: int = 0, swap: Swap = NO_SWAP, share: int = _MANY
) -> Ladder:
    """The rungs worth trying.

    Args:
        strategy: stage and offload.
        largest: elements of the model's largest tensor.
        swap: of what is on NVMe.
        share: elements whose states one rank has, on one node.
    """
    host = tuple(map(setting, _host(strategy, swap)))
    if strategy.stage == 0:
        return Ladder(host=host, gpu=((setting({}),),))
    buckets = [{}, *({"reduce_bucket_size": size} for size in _sizes(largest))]
    if strategy.stage < 3:
        last = tuple(setting({**size, "overlap_comm": False}) for size in buckets)
        return Ladder(host=host, gpu=(tuple(map(setting, buckets)),), last=last, is_ordered=False)
    windows = _WINDOWS
    if strategy.weights_on == "nvme":
        more = {"offload_param.buffer_count": swap.modules} if swap.modules else {}
        windows = tuple([{**window, **more} for window in _SWAPPED_WINDOWS])
    gpu = tuple(tuple(setting({**window, **size}) for size in buckets) for window in windows)
    last = (setting({**gpu[-1][-1].keys, _PERSIST: 0}),)
    partial = tuple(tuple(map(setting, rows)) for rows in _partial(strategy, share))
    return Ladder(host=host, gpu=gpu, partial=partial, last=last)


def wider_windows(strategy: Strategy, total: int) -> list[list[Tuning]]:
    """Windows that keep all weights gathered until backward, or a part, by buckets they may want.

    A weight stays while so many elements are live and its next use is no further: through the rest
    of forward, and back. What is swapped holds few buffers, see ``_SWAPPED_WINDOWS``.
    """
    if strategy.stage < 3 or strategy.weights_on == "nvme":
        return []
    sizes = (round_up(int(total * part), _STEP_OF_WINDOWS) for part in _PARTS)
    buckets = ({}, *({"reduce_bucket_size": size} for size in _NARROWER))
    return [
        [setting({_LIVE: size, _REUSE: 2 * size, **bucket}) for bucket in buckets]
        for size in sizes
        if size > _USUAL_WINDOW
    ]


def settings_of(strategy: Strategy) -> tuple[Tuning, ...]:
    """Every setting of a strategy, what the user wrote first."""
    return ladder_of(strategy).every


def _sizes(largest: int) -> list[int]:
    """Buckets, the largest first; one takes the largest tensor, which would stay beside it."""
    whole = round_up(largest, 2**20)
    more = [whole] if whole > _BUCKETS[-1] and whole not in (*_BUCKETS, DEFAULT_BUCKET) else []
    return sorted([*_BUCKETS, *more], reverse=True)


def _host(strategy: Strategy, swap: Swap) -> list[dict[str, Any]]:
    pins = _pins(strategy)
    if strategy.stage < 3:
        return pins
    groups = [{}, *({"sub_group_size": size} for size in _SUB_GROUPS)]
    rows = [{**pin, **group} for pin in pins for group in groups]
    if strategy.weights_on == "nvme" and swap.weights:
        rows.append({**rows[-1], "offload_param.buffer_size": swap.weights})
    if strategy.optimizer_on == "nvme" and swap.states:
        rows.append({**rows[-1], "offload_optimizer.buffer_count": swap.states})
    return rows


def _partial(strategy: Strategy, share: int) -> list[list[dict[str, Any]]]:
    """Whole sub-groups stay on the GPU: they must be small for a share to be met."""
    size = _SUB_GROUPS[0] if share >= _MANY else _SUB_GROUPS[-1]
    if strategy.optimizer_on != "cpu" or share < 4 * size:
        return []
    return [
        [
            {"offload_optimizer.ratio": ratio, **pin, "sub_group_size": size}
            for pin in _pins(strategy)
        ]
        for ratio in _RATIOS
    ]


_FINE = 0.05


def finer_shares(found: Tuning) -> list[Tuning]:
    """Shares below that of a setting, down to the next rung."""
    share = found.values.get("optimizer_ratio", 1.0)
    size = {"sub_group_size": found.values.get("sub_group_size", _SUB_GROUPS[0])}
    steps = (round(share - _FINE * step, 2) for step in range(1, 5))
    return [setting({"offload_optimizer.ratio": finer, **size}) for finer in steps if finer > 0]


def larger_shares(found: Tuning) -> list[Tuning]:
    """Shares above that of a setting, up to the next rung, the largest first; none of a whole."""
    share = found.values.get("optimizer_ratio", 1.0)
    steps = (round(share + _FINE * step, 2) for step in (4, 3, 2, 1))
    sizes = dict.fromkeys((found.values.get("sub_group_size"), _SUB_GROUPS[-1]))
    return [
        setting({"offload_optimizer.ratio": larger, "sub_group_size": size})
        for larger in steps
        for size in sizes
        if larger < 1 and size
    ]


def other_cuts(found: Tuning) -> list[Tuning]:
    """Shares with other sub-groups, from the setting's own share down."""
    most = found.values.get("optimizer_ratio", 1.0)
    shares = (round(most - _FINE * step, 2) for step in range(8))
    sizes = [*_SUB_GROUPS, _WHOLE_SUB_GROUP]
    return [
        setting({"offload_optimizer.ratio": share, "sub_group_size": size})
        for share in shares
        for size in sizes
        if share > 0
    ]


def _pins(strategy: Strategy) -> list[dict[str, Any]]:
    """Pinned, whose copies are faster, then not: pinned blocks are powers of two.

    Offloaded weights end in a pinned buffer in any case; their key is about building the model.
    """
    rows: list[dict[str, Any]] = [{}]
    if strategy.optimizer_on:
        rows.append({_PIN_OPTIMIZER: False})
    if strategy.weights_on:
        rows.append({**rows[-1], _PIN_PARAM: False})
    return rows


def with_keys(zero: Mapping[str, Any], found: Tuning) -> dict[str, Any]:
    """``zero_optimization`` with a setting written into it."""
    values = dict(zero)
    for key, value in found.keys.items():
        section, _, name = key.rpartition(".")
        if section:
            values[section] = {**values.get(section, {}), name: value}
        else:
            values[name] = value
    return values
