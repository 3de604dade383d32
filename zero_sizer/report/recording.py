"""A recording for a reader at a terminal."""

from collections.abc import Sequence

from zero_sizer.report.table import show_table
from zero_sizer.units import format_gib
from zero_sizer.witnesses.recording import PhaseRecord, RankRecord, Recording, Room

_SHOWN = 12  # buffers listed at the last boundary
_LOG_BLOCKS = 30  # of init; ZeRO-3 writes two for each sub group
_MICRO_STEP = "Engine before forward"
_FIGURES = {
    "gpu at end": ("gpu", "allocated"),
    "gpu peak": ("gpu", "max_allocated"),
    "gpu reserved": ("gpu", "max_reserved"),
    "host at end": ("host", "allocated"),
    "host peak": ("host", "max_allocated"),
    "pinned": ("host", "pinned"),
    "nvme": ("nvme", "allocated"),
}


def show(recording: Recording) -> None:
    """Print the phases of the rank that holds most, and what it held at the end."""
    rank = max(recording.ranks, key=lambda item: item.peak().get("gpu", 0))
    print(
        f"{recording.how} run of {recording.job.get('name', 'the model')}: rank {rank.rank} of "
        f"{recording.world_size}, DeepSpeed {recording.versions.get('deepspeed', '?')}"
    )
    print()
    if recording.log:
        _log(recording.log)
    _phases(rank)
    print()
    _live(rank.phases[-1])
    print()
    _workspaces(recording)
    _rooms(recording.rooms)
    for note in (*recording.notes, *_outside(recording)):
        print(f"note: {note}")
    if rank.skipped_steps:
        print(f"note: fp16 loss scaling skipped {rank.skipped_steps} optimizer steps")


def _log(lines: Sequence[str]) -> None:
    """``see_memory_usage`` in DeepSpeed's format: all of init, then the first micro step's ends."""
    blocks = _blocks(lines)
    starts = [i for i, block in enumerate(blocks) if block[0].startswith(_MICRO_STEP)]
    first, second = (*starts, len(blocks), len(blocks))[:2]
    ends = [block for block in blocks[first:second] if block[0].startswith("Engine ")]
    shown = [line for block in (*blocks[:first][:_LOG_BLOCKS], *ends) for line in block]
    for line in shown:
        print(line)
    if len(shown) < len(lines):
        print(f"... and {len(lines) - len(shown)} more lines in the recording (--output FILE)")
    print()


def _blocks(lines: Sequence[str]) -> list[list[str]]:
    """Each message with the figures that follow it."""
    blocks: list[list[str]] = []
    for line in lines:
        if blocks and line.startswith(("MA ", "CPU Virtual Memory")):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


def _phases(rank: RankRecord) -> None:
    measured = {
        head: (device, figure)
        for head, (device, figure) in _FIGURES.items()
        if any(figure in phase.device.get(device, {}) for phase in rank.phases)
    }
    rows = []
    for phase in rank.phases:
        cells = [phase.name, str(phase.step), str(phase.micro_step)]
        for device, name in measured.values():
            figures = phase.device.get(device, {})
            cells.append(format_gib(figures[name]) if name in figures else "")
        rows.append(cells)
    heads = ("phase", "step", "micro", *measured)
    show_table(heads, rows, right=range(1, len(heads)))


def _live(phase: PhaseRecord) -> None:
    buffers = sorted(phase.live, key=lambda buffer: -buffer.num_bytes)
    rows = [
        (
            buffer.name,
            buffer.category,
            "host, pinned" if buffer.pinned else buffer.device,
            format_gib(buffer.num_bytes),
        )
        for buffer in buffers[:_SHOWN]
    ]
    rest = sum(buffer.num_bytes for buffer in buffers[_SHOWN:])
    if rest:
        rows.append((f"{len(buffers) - _SHOWN} more", "", "", format_gib(rest)))
    show_table((f"alive after {phase.name}", "category", "device", "size"), rows, right=(3,))


def _workspaces(recording: Recording) -> None:
    """What kernels would add to PyTorch's figures on a GPU, as cited formulas."""
    if recording.how != "simulated":
        return
    from zero_sizer.witnesses.simulated.workspaces import workspaces_of

    found = workspaces_of(recording.job)
    if not found:
        return
    rows = [(row.name, row.about, format_gib(row.num_bytes), row.source) for row in found]
    heads = ("kernel workspace, to be added", "when", "size", "follows (PyTorch)")
    show_table(heads, rows, right=(2,))
    print()


def _rooms(rooms: Sequence[Room]) -> None:
    """Whether the run fits the GPU, where others take the least of it and where they take most."""
    if not rooms:
        return
    short = [room for room in rooms if not room.fits]
    least, most = (format_gib(f(room.num_bytes for room in rooms)) for f in (min, max))
    of_gpu = f"PyTorch may take {least} to {most} of this GPU"
    if not short:
        print(f"{of_gpu}: the run fits, fragmentation included")
        return
    room = max(short, key=lambda room: room.num_bytes)
    verdict = "the run may not fit" if len(short) < len(rooms) else "the run does not fit"
    print(
        f"{of_gpu}: {verdict}, fragmentation included: with {format_gib(room.num_bytes)} it runs "
        f"out of memory in {room.phase} ({format_gib(room.requested)} asked for, "
        f"{format_gib(room.allocated)} allocated, {format_gib(room.reserved)} reserved)"
    )
    print("  PYTORCH_ALLOC_CONF=expandable_segments:True wastes less; set, it is simulated as well")


def _outside(recording: Recording) -> list[str]:
    """What a simulated GPU has no figures for, as ranges of published measurements."""
    if recording.how != "simulated":
        return []
    from zero_sizer.hardware import catalog, outside

    name = str(recording.job.get("gpu") or "")
    gpu = catalog.find(name) if name else None
    parts = {"the CUDA context": outside.context(gpu)}
    if recording.world_size > 1:
        parts["NCCL"] = outside.NCCL.interval
    texts = [
        f"{what} ({format_gib(found.low)} to {format_gib(found.high)})"
        for what, found in parts.items()
    ]
    return [f"outside PyTorch's allocator and not in these figures: {' and '.join(texts)}"]
