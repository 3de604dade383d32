"""The recording of a run, dry or real: what each rank held, phase by phase. JSON in, JSON out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from zero_sizer.allocator.room import Room
from zero_sizer.errors import InputError
from zero_sizer.parallel import ParallelDims
from zero_sizer.units import format_gib
from zero_sizer.util import checked
from zero_sizer.util.files import read_json, write_text
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import shown

SCHEMA_VERSION = 1
SIMULATED, TRAINED = "simulated", "trained"
HOWS = (SIMULATED, "solo", "launched", TRAINED)
_MAX_BYTES = 256 * 2**20
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
        name: ``init``, ``forward``, ``backward`` or ``step``; of a trained run also ``save`` and
            ``evaluation``.
        step: optimizer step, from 0.
        micro_step: micro step within the optimizer step, from 0.
        device: device -> {``allocated``: bytes at the boundary, ``max_allocated``: most bytes
            within the phase, and ``reserved``/``max_reserved`` where an allocator tells; of a
            trained run ``used``: bytes that the driver has handed out, to anybody, and on the host
            ``resident`` and ``max_resident``: of the rank's process, now and ever}; a figure that
            was not measured is left out.
        live: what is alive at the boundary; empty where nobody looked.
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
class StepRecord:
    """One optimizer step of a trained run, by the clock.

    Attributes:
        step: from 0.
        seconds: since the end of the step before, whatever happened in between included.
        tokens: of the rank's batches; 0 where they could not be counted.
    """

    step: int
    seconds: float
    tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class RankRecord:
    """Every phase boundary of one rank.

    Attributes:
        rank: global rank.
        phases: in the order they were passed; of a trained run those of its first steps, of the
            highest one and of the last.
        steps: of a trained run, the last ones.
        skipped_steps: optimizer steps that fp16 loss scaling skipped.
        notes: what the reader must know about how these figures came about.
    """

    rank: int
    phases: tuple[PhaseRecord, ...]
    steps: tuple[StepRecord, ...] = ()
    skipped_steps: int = 0
    notes: tuple[str, ...] = ()

    def last(self, name: str) -> PhaseRecord | None:
        """The last record of a phase, or None where the run had none."""
        return next((phase for phase in reversed(self.phases) if phase.name == name), None)

    def last_listed(self, name: str) -> PhaseRecord | None:
        """The last record of a phase that lists what was alive; the last at all if none does."""
        listed = (p for p in reversed(self.phases) if p.name == name and p.live)
        return next(listed, self.last(name))

    def peak(self) -> dict[str, int]:
        """Device -> most bytes seen in any phase."""
        peaks: dict[str, int] = {}
        for phase in self.phases:
            for device, figures in phase.device.items():
                most = max(figures.get("max_allocated", 0), figures.get("allocated", 0))
                peaks[device] = max(peaks.get(device, 0), most)
        return peaks


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A run, as the contract writes it.

    Attributes:
        how: ``simulated``, ``solo`` or ``launched`` of a dry run, ``trained`` of a real one.
        versions: package -> version.
        world_size: ranks in the run.
        job: model, config and workload that were run, with every cut that was made.
        ranks: at least the rank that ``phases`` shows.
        log: ``see_memory_usage`` lines.
        notes: what the reader must know.
        rooms: of a simulated GPU, where others take the least and the most of it.
        prediction: device -> ``low``, ``expected`` and ``high`` bytes of its peak, as they were
            predicted when a trained run began; empty where nothing was.
    """

    how: str
    versions: Mapping[str, str]
    world_size: int
    job: Mapping[str, Any]
    ranks: tuple[RankRecord, ...]
    log: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rooms: tuple[Room, ...] = ()
    prediction: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
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
            "prediction": {device: dict(found) for device, found in self.prediction.items()},
            "ranks": [asdict(rank) for rank in self.ranks],
            **self.extra,
        }

    def write(self, path: str | Path) -> None:
        """Write the recording as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, json.dumps(self.to_json(), indent=1) + "\n")


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
    values = read_json(path, _MAX_BYTES, "a recording")
    try:
        return from_json(values)
    except ValueError as error:
        raise InputError(f"not a recording: {error}", where=str(path)) from None


def from_json(values: Any) -> Recording:
    """A recording from the contract's mapping.

    Raises:
        ValueError: another schema version, or a value that no dry run writes.
    """
    top = checked.mapping(values, "it")
    version = top.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {shown(version)}, expected {SCHEMA_VERSION}")
    world_size = _whole(top, "world_size", least=1, most=checked.MOST_RANKS)
    ranks = top.get("ranks") or [{key: top.get(key) for key in ("rank", "phases")}]
    versions = checked.mapping(checked.required(top, "versions", "it"), "versions")
    return Recording(
        how=checked.one_of(top.get("how"), "how", HOWS),
        versions={key: checked.text(value, f"versions.{key}") for key, value in versions.items()},
        world_size=world_size,
        job=_job(checked.mapping(checked.required(top, "job", "it"), "job"), world_size),
        ranks=_ranks(ranks, world_size),
        log=checked.texts(top.get("log", ()), "log"),
        notes=checked.texts(top.get("notes", ()), "notes"),
        rooms=tuple(_room(room) for room in checked.items(top.get("rooms", ()), "rooms")),
        prediction={
            device: _figures(found, f"prediction of {device}")
            for device, found in checked.mapping(top.get("prediction", {}), "prediction").items()
        },
    )


def _job(job: Mapping[str, Any], world_size: int) -> Mapping[str, Any]:
    """What is read of the job must be what a dry run says of it."""
    if job.get("layers") is not None:
        checked.whole(job["layers"], "job.layers", least=1)
    if "local_world_size" in job:
        local = checked.whole(job["local_world_size"], "job.local_world_size", least=1)
        if not ParallelDims(world_size=world_size, ranks_per_node=local).fills_nodes:
            raise ValueError(f"job.local_world_size {local} does not divide {world_size} ranks")
    if job.get("config") is not None:
        checked.mapping(job["config"], "job.config")
    return job


def _ranks(ranks: Any, world_size: int) -> tuple[RankRecord, ...]:
    found = tuple(rank_from_json(rank) for rank in checked.items(ranks, "ranks"))
    numbers = [rank.rank for rank in found]
    if len(set(numbers)) != len(numbers) or max(numbers) >= world_size:
        raise ValueError(f"ranks are {shown(numbers)} of {world_size}")
    return found


def rank_from_json(values: Any) -> RankRecord:
    """One rank's record from its JSON mapping.

    Raises:
        ValueError: a value that no dry run writes.
    """
    rank = checked.mapping(values, "a rank")
    phases = checked.items(rank.get("phases"), "phases")
    if not phases:
        raise ValueError("a rank has no phases")
    return RankRecord(
        rank=_whole(rank, "rank", most=checked.MOST_RANKS),
        phases=tuple(map(_phase, phases)),
        steps=tuple(map(_step, checked.items(rank.get("steps", ()), "steps"))),
        skipped_steps=_whole(rank, "skipped_steps", default=0),
        notes=checked.texts(rank.get("notes", ()), "notes"),
    )


def _phase(values: Any) -> PhaseRecord:
    phase = checked.mapping(values, "a phase")
    devices = checked.mapping(checked.required(phase, "device", "a phase"), "device")
    return PhaseRecord(
        name=checked.text(phase.get("name"), "a phase's name"),
        step=_whole(phase, "step", default=0),
        micro_step=_whole(phase, "micro_step"),
        device={name: _figures(figures, name) for name, figures in devices.items()},
        live=tuple(map(_buffer, checked.items(phase.get("live", ()), "live"))),
    )


def _step(values: Any) -> StepRecord:
    step = checked.mapping(values, "a step")
    return StepRecord(
        step=_whole(step, "step"),
        seconds=checked.number(step.get("seconds"), "a step's seconds"),
        tokens=_whole(step, "tokens", default=0),
    )


def _figures(values: Any, device: str) -> dict[str, int]:
    figures = checked.mapping(values, f"device.{device}")
    return {name: checked.whole(value, f"{device}.{name}") for name, value in figures.items()}


def _buffer(values: Any) -> LiveBuffer:
    buffer = checked.mapping(values, "a live buffer")
    return LiveBuffer(
        name=checked.text(buffer.get("name"), "a buffer's name"),
        category=checked.one_of(buffer.get("category"), "category", CATEGORIES),
        device=checked.text(buffer.get("device"), "a buffer's device"),
        pinned=checked.flag(buffer.get("pinned", False), "pinned"),
        num_bytes=_whole(buffer, "num_bytes"),
        num_storages=_whole(buffer, "num_storages", default=1),
    )


def _room(values: Any) -> Room:
    room = checked.mapping(values, "a room")
    return Room(
        num_bytes=_whole(room, "num_bytes"),
        fits=checked.flag(room.get("fits", True), "fits"),
        phase=checked.text(room.get("phase", ""), "phase"),
        requested=_whole(room, "requested", default=0),
        allocated=_whole(room, "allocated", default=0),
        reserved=_whole(room, "reserved", default=0),
    )


def _whole(
    values: Mapping[str, Any],
    key: str,
    *,
    least: int = 0,
    most: int = checked.MOST_BYTES,
    default: int | None = None,
) -> int:
    return checked.whole(values.get(key, default), key, least=least, most=most)
