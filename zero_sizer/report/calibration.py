"""A cluster profile for a reader at a terminal."""

from zero_sizer.hardware.measured import LAYOUTS, ClusterProfile, MeasuredBytes, span
from zero_sizer.report.document import print_document
from zero_sizer.report.table import show_line, show_table

_NAMES = {
    "one_gpu": "outside PyTorch, one GPU",
    "one_node": "outside PyTorch, one node",
    "several_nodes": "outside PyTorch, several nodes",
}


def show_profile(profile: ClusterProfile) -> None:
    """Print what was measured, and what stays as published."""
    unknown = f"{profile.gpu_name}, not in the GPU table" if profile.gpu_name else "no GPU"
    where = profile.gpu or unknown
    told = _count(profile.ranks, "rank"), _count(len(profile.recordings), "recording")
    show_line(f"{where}: {' in '.join(told)}", indent="")
    rows = [
        (_NAMES[layout], *_bytes(profile.outside[layout]))
        for layout in LAYOUTS
        if layout in profile.outside
    ]
    if profile.reserve is not None:
        reserve = profile.reserve
        about = f"{reserve.median:.1%}, {reserve.most:.1%} at most"
        rows.append(("reserved beyond what is allocated", about, _count(reserve.ranks, "rank")))
    if profile.process is not None:
        rows.append(("a process without its tensors", *_bytes(profile.process)))
    for name, rate in profile.rates.items():
        about = f"{rate.value:.3g} ({rate.low:.3g} to {rate.high:.3g})"
        rows.append((name, about, _count(rate.runs, "run")))
    if rows:
        show_table(("measured", "", "of"), rows)
    for note in profile.notes:
        show_line(f"note: {note}")
    if profile.source:
        print(f"profile written to {profile.source}: --cluster-profile {profile.source}")


def print_profile(profile: ClusterProfile) -> None:
    """Print the profile as JSON, as its file has it."""
    print_document(profile.to_json())


def _bytes(found: MeasuredBytes) -> tuple[str, str]:
    return span(found), _count(found.ranks, "rank")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
