"""The recording of a dry run: what each rank held, phase by phase. JSON in, JSON out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.units import format_gib

SCHEMA_VERSION = 1
CATEGORIES = (
    "parameters",
    "master_weights",
    "optimizer_states",
    "gradients",
    "communication_buffers",
    "offload_buffers",
    "model_buffers",
    "activations",
    "other",
)


@dataclass(frozen=True, kw_only=True)
class LiveBuffer:
    """Live storages that one attribute of the engine owns.

    Attributes:
        name: DeepSpeed's own name for the attribute, e.g. ``grads_in_partition``.
        category: one of ``CATEGORIES``.
        device: ``gpu`` or ``host``: where the storages lie on a machine with GPUs.
        pinned: page-locked host memory.
        num_bytes: bytes of the storages together, each storage counted once.
        num_storages: how many storages (pinned rounding works per storage).
    """

    name: str
    category: str
    device: str
    pinned: bool = False
    num_bytes: int
    num_storages: int = 1


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """One phase boundary on one rank.

    Attributes:
        name: ``init``, ``forward``, ``backward`` or ``step``.
        step: optimizer step, from 0.
        micro_step: micro step within the optimizer step, from 0.
        device: device -> {``allocated``: bytes at the boundary, ``max_allocated``: most bytes
            within the phase, and ``reserved``/``max_reserved`` where an allocator tells};
            a figure that was not measured is left out.
        live: what is alive at the boundary.
    """

    name: str
    step: int = 0
    micro_step: int = 0
    device: Mapping[str, Mapping[str, int]]
    live: tuple[LiveBuffer, ...] = ()

    def num_bytes(self, category: str | None = None, device: str | None = None) -> int:
        """Live bytes, of one category and device where given."""
        return sum(
            buffer.num_bytes
            for buffer in self.live
            if category in (None, buffer.category) and device in (None, buffer.device)
        )


@dataclass(frozen=True, kw_only=True)
class RankRecord:
    """Every phase boundary of one rank.

    Attributes:
        rank: global rank.
        phases: in the order they were passed.
        skipped_steps: optimizer steps that fp16 loss scaling skipped.
        notes: what the reader must know about how these figures came about.
    """

    rank: int
    phases: tuple[PhaseRecord, ...]
    skipped_steps: int = 0
    notes: tuple[str, ...] = ()

    def last(self, name: str) -> PhaseRecord | None:
        """The last record of a phase, or None where the run had none."""
        return next((phase for phase in reversed(self.phases) if phase.name == name), None)

    def peak(self) -> dict[str, int]:
        """Device -> most bytes seen in any phase."""
        peaks: dict[str, int] = {}
        for phase in self.phases:
            for device, figures in phase.device.items():
                most = max(figures.get("max_allocated", 0), figures.get("allocated", 0))
                peaks[device] = max(peaks.get(device, 0), most)
        return peaks


@dataclass(frozen=True, kw_only=True)
class Room:
    """Whether a run fits so much memory of a GPU, fragmentation included.

    Attributes:
        num_bytes: what PyTorch's allocator may take of the GPU.
        fits: it never ran out.
        phase: where it did.
        requested, allocated, reserved: bytes asked for then, live and held; 0 where it fits.
    """

    num_bytes: int
    fits: bool = True
    phase: str = ""
    requested: int = 0
    allocated: int = 0
    reserved: int = 0


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A dry run, as the contract writes it.

    Attributes:
        how: ``simulated``, ``solo`` or ``launched``.
        versions: package -> version.
        world_size: ranks in the run.
        job: model, config and workload that were run, with every cut that was made.
        ranks: at least the rank that ``phases`` shows.
        log: ``see_memory_usage`` lines.
        notes: what the reader must know.
        rooms: of a simulated GPU, where others take the least and the most of it.
    """

    how: str
    versions: Mapping[str, str]
    world_size: int
    job: Mapping[str, Any]
    ranks: tuple[RankRecord, ...]
    log: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rooms: tuple[Room, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> RankRecord:
        """The lowest rank recorded: the one that ``phases`` shows."""
        return min(self.ranks, key=lambda rank: rank.rank)

    def to_json(self) -> dict[str, Any]:
        """The contract's mapping."""
        first = self.first
        return {
            "schema_version": SCHEMA_VERSION,
            "how": self.how,
            "versions": dict(self.versions),
            "world_size": self.world_size,
            "rank": first.rank,
            "job": dict(self.job),
            "phases": [asdict(phase) for phase in first.phases],
            "peak": first.peak(),
            "log": list(self.log),
            "notes": list(self.notes),
            "rooms": [asdict(room) for room in self.rooms],
            "ranks": [asdict(rank) for rank in self.ranks],
            **self.extra,
        }

    def write(self, path: str | Path) -> None:
        """Write the recording as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        try:
            Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write: {error.strerror}", where=str(path)) from None


def merged(recordings: Sequence[Recording]) -> Recording:
    """Recordings of several ranks of one run as one; what is no rank's is of the highest."""
    ranks = tuple(rank for recording in recordings for rank in recording.ranks)
    highest = max(recordings, key=lambda recording: recording.first.peak().get("gpu", 0))
    told = ", ".join(f"{rank.rank} ({format_gib(rank.peak().get('gpu', 0))})" for rank in ranks)
    note = f"GPU peak of the ranks simulated: {told}; shown is rank {highest.first.rank}"
    top = {"highest": {"rank": highest.first.rank, "peak": highest.first.peak()}}
    return replace(highest, ranks=ranks, notes=(*highest.notes, note), extra=top)


def read(path: str | Path) -> Recording:
    """Read a recording that ``Recording.write`` wrote.

    Raises:
        InputError: no such file, not JSON, or not a recording.
    """
    try:
        return from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not a recording: {error!r}", where=str(path)) from None


def from_json(values: Mapping[str, Any]) -> Recording:
    """A recording from the contract's mapping.

    Raises:
        ValueError: another schema version.
    """
    if values["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {values['schema_version']}, expected {SCHEMA_VERSION}")
    ranks = values.get("ranks") or [{"rank": values["rank"], "phases": values["phases"]}]
    return Recording(
        how=values["how"],
        versions=values["versions"],
        world_size=values["world_size"],
        job=values["job"],
        ranks=tuple(rank_from_json(rank) for rank in ranks),
        log=tuple(values.get("log", ())),
        notes=tuple(values.get("notes", ())),
        rooms=tuple(Room(**room) for room in values.get("rooms", ())),
    )


def rank_from_json(values: Mapping[str, Any]) -> RankRecord:
    """One rank's record from its JSON mapping."""
    return RankRecord(
        rank=values["rank"],
        phases=tuple(_phases(values["phases"])),
        skipped_steps=values.get("skipped_steps", 0),
        notes=tuple(values.get("notes", ())),
    )


def _phases(phases: Iterable[Mapping[str, Any]]) -> Iterable[PhaseRecord]:
    for phase in phases:
        yield PhaseRecord(
            name=phase["name"],
            step=phase.get("step", 0),
            micro_step=phase["micro_step"],
            device=phase["device"],
            live=tuple(LiveBuffer(**buffer) for buffer in phase.get("live", ())),
        )
