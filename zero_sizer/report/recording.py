"""A recording for a reader at a terminal."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from zero_sizer.dryrun.answer import RunAnswer, StoppedRun
from zero_sizer.dryrun.recording import PhaseRecord, RankRecord, Recording
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.document import print_document
from zero_sizer.report.json import finding_mapping, reason_mapping
from zero_sizer.report.table import gib, show_line, show_table
from zero_sizer.report.text import line_of
from zero_sizer.report.verdict import WORDS, invalid, reason_line, show_words
from zero_sizer.units import format_gib

_SHOWN = 12  # buffers listed at the last boundary
_LOG_BLOCKS = 30  # of init; ZeRO-3 writes two for each sub group
_MICRO_STEP = "Engine before forward"
NO_FILES: Mapping[str, str] = MappingProxyType({})
_FIGURES = {
    "GPU end": ("gpu", "allocated"),
    "GPU peak": ("gpu", "max_allocated"),
    "reserved": ("gpu", "max_reserved"),
    "host end": ("host", "allocated"),
    "host peak": ("host", "max_allocated"),
    "pinned": ("host", "pinned"),
    "NVMe": ("nvme", "allocated"),
}


def show(answer: RunAnswer, *, files: Mapping[str, str] = NO_FILES) -> None:
    """Print the verdict, the phases of the rank that holds most, and what it held at the end."""
    recording = answer.recording
    rank = max(recording.ranks, key=lambda item: item.peak().get("gpu", 0))
    _verdict(answer)
    show_line(
        f"{recording.how} run of {recording.job.get('name', 'the model')}: rank {rank.rank} of "
        f"{recording.world_size}, DeepSpeed {recording.versions.get('deepspeed', '?')}"
    )
    print()
    if len(recording.ranks) > 1:
        _ranks(recording)
        print()
    _phases(rank)
    print()
    if recording.log:
        _log(recording.log)
    _live(rank.phases[-1])
    print()
    _workspaces(answer)
    for note in (*recording.notes, *_outside(answer)):
        show_line(f"note: {note}")
    if rank.skipped_steps:
        print(f"note: fp16 loss scaling skipped {rank.skipped_steps} optimizer steps")
    for what, path in files.items():
        print(f"{what} written to {path}")


def print_recording(answer: RunAnswer, *, files: Mapping[str, str] = NO_FILES) -> None:
    """Print the recording as JSON, headed by its verdict; of ``files`` it says nothing."""
    found = {
        "verdict": answer.verdict.value if answer.verdict else None,
        "reasons": [reason_mapping(reason) for reason in answer.reasons],
        **answer.recording.to_json(),
    }
    print_document(found)


def show_stopped(answer: StoppedRun) -> None:
    """Print what DeepSpeed says, then every error with its file, line and key."""
    first, *_ = answer.findings
    show_words(invalid(len(answer.findings)), [first.message])
    without = "no recording" if answer.is_started else "not started, for these errors stop the job"
    show_line(f"{answer.how} run of {answer.about}: {without}")
    print()
    for finding in answer.findings:
        show_line(line_of(finding, answer.source))


def print_stopped(answer: StoppedRun) -> None:
    """Print the findings as JSON; whether the job would fit is not known."""
    found = {
        "schema_version": 1,
        "verdict": Verdict.UNCERTAIN.value,
        "how": answer.how,
        "findings": [finding_mapping(finding) for finding in answer.findings],
    }
    print_document(found)


def _verdict(answer: RunAnswer) -> None:
    """Whether the run fits, where it had a device of a known size."""
    verdict = answer.verdict
    if verdict is None:
        return
    if verdict is Verdict.FITS:
        show_words(WORDS[verdict], [_fits(answer.recording)])
    else:
        show_words(WORDS[verdict], [reason_line(reason) for reason in answer.reasons])


def _fits(recording: Recording) -> str:
    if not recording.rooms:
        return "what a node holds leaves room for its processes"
    least = min(room.num_bytes for room in recording.rooms)
    return (
        f"PyTorch's allocator, replayed, gets along with {format_gib(least)} of each GPU, "
        "fragmentation included"
    )


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


def _ranks(recording: Recording) -> None:
    """What each rank held at most, and where it ran."""
    slots = recording.job.get("hosts") or {}
    hosts = [host for host, count in slots.items() for _ in range(count)]
    rows = []
    for rank in recording.ranks:
        peak = rank.peak()
        where = [hosts[rank.rank]] if hosts else []
        rows.append([str(rank.rank), *where, *(gib(peak.get(name, 0)) for name in ("gpu", "host"))])
    heads = ("rank", *(["host"] if hosts else []), "GPU peak, GiB", "host peak, GiB")
    show_table(heads, rows, right=(0, len(heads) - 2, len(heads) - 1))


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
            cells.append(gib(figures[name]) if name in figures else "")
        rows.append(cells)
    heads = ("GiB", "step", "micro", *measured)
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


def _workspaces(answer: RunAnswer) -> None:
    """What kernels would add to PyTorch's figures on a GPU, as cited formulas."""
    if not answer.workspaces:
        return
    rows = [
        (row.name, row.about, format_gib(row.num_bytes), row.source) for row in answer.workspaces
    ]
    heads = ("kernel workspace, to be added", "when", "size", "follows (PyTorch)")
    show_table(heads, rows, right=(2,))
    print()


def _outside(answer: RunAnswer) -> list[str]:
    """What a simulated GPU has no figures for, as ranges of published measurements."""
    if not answer.outside:
        return []
    texts = [
        f"{what} ({format_gib(found.low)} to {format_gib(found.high)})"
        for what, found in answer.outside.items()
    ]
    return [f"outside PyTorch's allocator and not in these figures: {' and '.join(texts)}"]
