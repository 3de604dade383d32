"""The table of README.md that lays `check` beside DeepSpeed's helper and the ZeRO paper's formula.

Of every published measurement of a ZeRO-2 or 3 run that all three speak about, none left out.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from support import published  # noqa: E402

from zero_sizer.crosscheck import helpers  # noqa: E402
from zero_sizer.hardware.device import Device  # noqa: E402
from zero_sizer.units import GIB  # noqa: E402

SHOWN = "lf1221-z2-oom"  # an out-of-memory message names its bytes
_READ_AS = ("highest", "peak", "device_used", "host_peak")
_MEASURED = "measured: a GPU at its out-of-memory error, what it refused included"
_WHO = (
    "zero_sizer",
    "DeepSpeed's helper, `estimate_zero*_model_states_mem_needs`",
    "the ZeRO paper's formula: 2P + 14P/N bytes at stage 2, 16P/N at stage 3",
)


def table() -> str:
    """The table as Markdown."""
    found = {row.id: (row, said) for row, said in _compared()}
    row, shown = found[SHOWN]
    sizing = published.sizing_of(row)
    ranks = sizing.job.cluster.world_size
    name, stage = sizing.job.model.name, sizing.plan.stage if sizing.plan else 0
    source = f"[{name}, ZeRO-{stage} on {ranks} GPUs]({row.job['source']})"
    lines = [
        f"| | {source} | error: median of {len(found)} published runs | worst |",
        "|---|---|---|---|",
        f"| {_MEASURED} | {row.measured[0] / GIB:.1f} GiB | | |",
    ]
    for index, who in enumerate(_WHO):
        errors = [abs(_error(row, said[index])) for row, said in found.values()]
        low = shown[index][0] / GIB
        lines.append(f"| {who} | {low:.1f} GiB | {median(errors):.0%} | {max(errors):.0%} |")
    return "\n".join(lines)


def _compared() -> Iterator[tuple[published.Row, tuple[tuple[float, float], ...]]]:
    """Measurement, and the bytes that each says, lowest and highest."""
    for row in published.rows():
        if row.is_outcome or row.fields["quantity"] not in _READ_AS:
            continue
        sizing = published.sizing_of(row)
        plan = sizing.plan
        line = helpers.matching(plan, helpers.for_job(sizing)) if plan and plan.stage > 1 else None
        if plan is None or line is None:
            continue
        is_host = row.fields["quantity"] == "host_peak"
        helper = float(line.host_bytes if is_host else line.gpu_bytes)
        numel, ranks = sizing.job.model.num_params, sizing.job.cluster.world_size
        weights = 2 * numel / (ranks if plan.stage == 3 else 1)
        is_offloaded = plan.optimizer_device is not Device.GPU
        formula = 0 if is_host else weights
        formula += 14 * numel / ranks if is_offloaded is is_host else 0
        yield row, (published.predicted(row), (helper, helper), (formula, formula))


def _error(row: published.Row, said: tuple[float, float]) -> float:
    """How far apart the two intervals are, of the measured one."""
    (low, high), (least, most) = said, row.measured
    return low / most - 1 if low > most else high / least - 1 if high < least else 0.0
