"""The verdict on a dry run: the rule of ``ledger.verdict`` on what was recorded."""

from zero_sizer.allocator.room import Room
from zero_sizer.dryrun.recording import Recording
from zero_sizer.findings import Direction, Reason
from zero_sizer.hardware import outside
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import capacity
from zero_sizer.ledger.capacity import Capacity, Fit
from zero_sizer.ledger.verdict import WHOSE, Verdict, too_small
from zero_sizer.units import format_gib


def verdict_of(recording: Recording) -> tuple[Verdict | None, tuple[Reason, ...]]:
    """The verdict and what decides it; None where the run had no device of a known size.

    Nor has a model cut to some layers one: that those fit says nothing of the whole.
    """
    found = [item for item in (_gpu(recording), _host(recording)) if item is not None]
    if not found:
        return None, ()
    fits = {fit for fit, _ in found}
    for fit, verdict in ((Fit.NO, Verdict.DOES_NOT_FIT), (Fit.UNKNOWN, Verdict.UNCERTAIN)):
        if fit in fits:
            return verdict, tuple(r for f, r in found if f is fit and r is not None)
    return (None if recording.job.get("layers") else Verdict.FITS), ()


def _gpu(recording: Recording) -> tuple[Fit, Reason | None] | None:
    """Replayed where others take the least of the GPU, and where they take the most."""
    if not recording.rooms:
        return None
    short = [room for room in recording.rooms if not room.fits]
    if not short:
        return Fit.YES, None
    fit = Fit.UNKNOWN if len(short) < len(recording.rooms) else Fit.NO
    room = max(short, key=lambda room: room.num_bytes)
    return fit, Reason(
        device="gpu",
        code="gpu-too-small" if fit is Fit.NO else "gpu-tight",
        direction=Direction.COST,
        message=_ran_out(room, fit),
        remedy="PYTORCH_ALLOC_CONF=expandable_segments:True wastes less; set, it is simulated too",
    )


def _ran_out(room: Room, fit: Fit) -> str:
    where = "each GPU" if fit is Fit.NO else f"with {format_gib(room.num_bytes)}, each GPU"
    missing = max(room.allocated + room.requested - room.num_bytes, 0)
    short = f" ({format_gib(missing)} short)" if missing else ", fragmentation included"
    return (
        f"{where} runs out of memory in {room.phase}{short}: {format_gib(room.requested)} asked "
        f"for, {format_gib(room.allocated)} allocated, {format_gib(room.reserved)} reserved"
    )


def _host(recording: Recording) -> tuple[Fit, Reason | None] | None:
    there = recording.job.get("host_bytes")
    if not isinstance(there, int) or not there:
        return None
    ranks = int(recording.job.get("local_world_size", 1))
    live = ranks * max(rank.peak().get("host", 0) for rank in recording.ranks)
    found = Capacity(num_bytes=there, outside=outside.of_host(there, ranks))
    fit = capacity.fit(live, found)
    if fit is Fit.YES:
        return fit, None
    need = capacity.need(live, found)
    if fit is Fit.NO:
        return fit, too_small(Device.HOST, need.low - there, "")
    return fit, Reason(
        device="host",
        code="host-tight",
        direction=Direction.COST,
        message=f"{WHOSE[Device.HOST]} needs {format_gib(need.low)} to {format_gib(need.high)} of "
        f"its {format_gib(there)}: the processes themselves and the kernel decide",
        remedy="leave more room",
    )
