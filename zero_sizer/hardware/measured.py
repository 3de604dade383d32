"""A cluster profile: what recordings of runs measured of one cluster, for later answers.

``zero-sizer calibrate`` writes one; ``--cluster-profile`` reads it.
"""

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.units import format_gib
from zero_sizer.util import checked
from zero_sizer.util.files import read_json
from zero_sizer.util.interval import Interval
from zero_sizer.util.records import dataclass

SCHEMA_VERSION = 1
_MAX_BYTES = 2**20
ONE_GPU, ONE_NODE, SEVERAL_NODES = "one_gpu", "one_node", "several_nodes"
LAYOUTS = (ONE_GPU, ONE_NODE, SEVERAL_NODES)
_ABOUT = {
    ONE_GPU: "the CUDA context",
    ONE_NODE: "context and NCCL in one node",
    SEVERAL_NODES: "context and NCCL over nodes",
}


@dataclass(frozen=True, kw_only=True)
class MeasuredBytes:
    """Bytes that several ranks measured.

    Attributes:
        low, expected, high: the least, the median and the most.
        ranks: how many measured it.
    """

    low: int
    expected: int
    high: int
    ranks: int

    @property
    def interval(self) -> Interval:
        """As the verdict counts it."""
        return Interval(self.low, self.expected, self.high)


@dataclass(frozen=True, kw_only=True)
class MeasuredReserve:
    """Share that PyTorch reserved beyond the most that it handed out: the median and the most."""

    median: float
    most: float
    ranks: int


@dataclass(frozen=True, kw_only=True)
class MeasuredRate:
    """A rate that runs reached.

    Attributes:
        value: the median, in the unit that its name says.
        low, high: of the runs.
        runs: how many.
    """

    value: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class ClusterProfile:
    """Everything that was measured; what was not is left to published ranges.

    Attributes:
        gpu: name of the GPU table; empty where the runs had none of it.
        gpu_name: the runs' GPU as its driver calls it; empty where they had none.
        outside: of ``LAYOUTS``: memory of a GPU that PyTorch does not count.
        reserve: of PyTorch's allocator.
        process: host memory of one rank's process without its tensors.
        rates: by key of a job file's ``cluster:`` section.
        recordings: the files that it rests on.
        ranks: recorded ranks, all together.
        notes: what could not be told.
        source: the file; empty while it is not written.
    """

    gpu: str = ""
    gpu_name: str = ""
    outside: Mapping[str, MeasuredBytes] = field(default_factory=dict)
    reserve: MeasuredReserve | None = None
    process: MeasuredBytes | None = None
    rates: Mapping[str, MeasuredRate] = field(default_factory=dict)
    recordings: tuple[str, ...] = ()
    ranks: int = 0
    notes: tuple[str, ...] = ()
    source: str = ""

    def outside_of(self, world_size: int, nodes: int) -> MeasuredBytes | None:
        """Of the layout that a job has; None where no run had it."""
        layout = ONE_GPU if world_size == 1 else ONE_NODE if nodes == 1 else SEVERAL_NODES
        return self.outside.get(layout)

    @property
    def is_of_unknown_gpu(self) -> bool:
        """True if a GPU was measured of which the table knows nothing."""
        return not self.gpu and bool(self.gpu_name or self.outside or self.reserve)

    @property
    def origin(self) -> str:
        """Where its values come from, in words."""
        count = len(self.recordings)
        return f"{self.source}: measured in {count} recording{'s' if count != 1 else ''}"

    def words(self) -> tuple[str, ...]:
        """A clause for each thing that was measured."""
        found = [
            f"{_ABOUT[layout]} {span(self.outside[layout])}"
            for layout in LAYOUTS
            if layout in self.outside
        ]
        if self.reserve is not None:
            found.append(f"a reserve of {self.reserve.median:.1%}, {self.reserve.most:.1%} at most")
        if self.process is not None:
            found.append(f"processes of {span(self.process)}")
        for name, rate in self.rates.items():
            found.append(f"{name} {rate.value:.3g}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "gpu": self.gpu or None,
            "gpu_name": self.gpu_name or None,
            "outside": {layout: asdict(found) for layout, found in self.outside.items()},
            "reserve": None if self.reserve is None else asdict(self.reserve),
            "process": None if self.process is None else asdict(self.process),
            "rates": {name: asdict(rate) for name, rate in self.rates.items()},
            "recordings": list(self.recordings),
            "ranks": self.ranks,
            "notes": list(self.notes),
        }


def span(found: MeasuredBytes) -> str:
    """The least and the most, in words."""
    low, high = format_gib(found.low), format_gib(found.high)
    return low if low == high else f"{low.removesuffix(' GiB')} to {high}"


def read(path: str, rates: tuple[str, ...]) -> ClusterProfile:
    """The profile in a file.

    Args:
        path: its name.
        rates: names that a rate may have.

    Raises:
        InputError: no such file, or not a cluster profile.
    """
    values = read_json(path, _MAX_BYTES, "a cluster profile")
    try:
        return _from_json(values, path, rates)
    except ValueError as error:
        raise InputError(
            f"not a cluster profile: {error}",
            remedy="`zero-sizer calibrate RECORDING... --output FILE` writes one",
            where=path,
        ) from None


def _from_json(values: Any, path: str, rates: tuple[str, ...]) -> ClusterProfile:
    top = checked.mapping(values, "it")
    version = top.get("schema_version")
    if version != SCHEMA_VERSION or "outside" not in top:
        raise ValueError(f"schema_version {SCHEMA_VERSION} and outside are expected")
    checked.only(top, tuple(ClusterProfile().to_json()), "it")
    outside = checked.mapping(top["outside"], "outside")
    found = checked.mapping(top.get("rates", {}), "rates")
    reserve, process = top.get("reserve"), top.get("process")
    return ClusterProfile(
        gpu=checked.text(top.get("gpu") or "", "gpu"),
        gpu_name=checked.text(top.get("gpu_name") or "", "gpu_name"),
        outside={
            checked.one_of(layout, "a layout", LAYOUTS): _bytes(measured, f"outside.{layout}")
            for layout, measured in outside.items()
        },
        reserve=None if reserve is None else _reserve(reserve),
        process=None if process is None else _bytes(process, "process"),
        rates={
            checked.one_of(name, "a rate", rates): _rate(rate, name) for name, rate in found.items()
        },
        recordings=checked.texts(top.get("recordings", ()), "recordings"),
        ranks=checked.whole(top.get("ranks", 0), "ranks"),
        notes=checked.texts(top.get("notes", ()), "notes"),
        source=path,
    )


def _bytes(values: Any, what: str) -> MeasuredBytes:
    row = checked.mapping(values, what)
    found = MeasuredBytes(
        low=checked.whole(row.get("low"), f"{what}.low"),
        expected=checked.whole(row.get("expected"), f"{what}.expected"),
        high=checked.whole(row.get("high"), f"{what}.high"),
        ranks=checked.whole(row.get("ranks", 1), f"{what}.ranks"),
    )
    if not found.low <= found.expected <= found.high:
        raise ValueError(f"{what} is not low <= expected <= high")
    return found


def _reserve(values: Any) -> MeasuredReserve:
    row = checked.mapping(values, "reserve")
    return MeasuredReserve(
        median=checked.number(row.get("median"), "reserve.median", most=1e3),
        most=checked.number(row.get("most"), "reserve.most", most=1e3),
        ranks=checked.whole(row.get("ranks", 1), "reserve.ranks"),
    )


def _rate(values: Any, name: str) -> MeasuredRate:
    row = checked.mapping(values, name)
    found = MeasuredRate(
        value=checked.number(row.get("value"), f"{name}.value", most=1e6),
        low=checked.number(row.get("low"), f"{name}.low", most=1e6),
        high=checked.number(row.get("high"), f"{name}.high", most=1e6),
        runs=checked.whole(row.get("runs", 1), f"{name}.runs"),
    )
    if not found.value:
        raise ValueError(f"{name} is 0")
    return found
