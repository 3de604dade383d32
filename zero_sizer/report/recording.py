"""A recording for a reader at a terminal."""

from zero_sizer.report.table import show_table
from zero_sizer.units import format_gib
from zero_sizer.witnesses.recording import PhaseRecord, RankRecord, Recording

_SHOWN = 12  # buffers listed at the last boundary


def show(recording: Recording) -> None:
    """Print the phases of the rank that holds most, and what it held at the end."""
    rank = max(recording.ranks, key=lambda item: item.peak().get("gpu", 0))
    print(
        f"{recording.how} run of {recording.job.get('name', 'the model')}: rank {rank.rank} of "
        f"{recording.world_size}, DeepSpeed {recording.versions.get('deepspeed', '?')}"
    )
    print()
    _phases(rank)
    print()
    _live(rank.phases[-1])
    for note in recording.notes:
        print(f"note: {note}")
    if rank.skipped_steps:
        print(f"note: fp16 loss scaling skipped {rank.skipped_steps} optimizer steps")


def _phases(rank: RankRecord) -> None:
    rows = []
    for phase in rank.phases:
        cells = [phase.name, str(phase.step), str(phase.micro_step)]
        for device in ("gpu", "host"):
            figures = phase.device.get(device, {})
            for name in ("allocated", "max_allocated"):
                cells.append(format_gib(figures[name]) if name in figures else "")
        rows.append(cells)
    heads = ("phase", "step", "micro", "gpu at end", "gpu peak", "host at end", "host peak")
    show_table(heads, rows, right=range(1, 7))


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
