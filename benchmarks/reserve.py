"""What PyTorch's caching allocator reserves and needs beyond what is allocated, over drawn jobs.

    python benchmarks/reserve.py [--jobs N] [--seeds S ...] [--write]

Whole models of 0.5B to 8B on 2 to 8 GPUs, bf16, AdamW, two optimizer steps: stages 0 to 3, micro
batches of 1 to 8, with and without activation checkpointing, adapters and offloaded states. The
simulated engine runs the rank whose GPU needs most; its trace of allocations, streams included, is
replayed in allocators of several sizes. `--write` puts the table into benchmarks/results.md.
"""

import argparse
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from cold_start import replace_section

from zero_sizer.allocator.caching import MemoryPoint, replay
from zero_sizer.allocator.settings import AllocatorSettings
from zero_sizer.dryrun.simulated import parent
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.simulator.tracker import GPU, Event
from zero_sizer.sizing import size
from zero_sizer.units import GIB

MODELS = {
    "qwen2.5-0.5b": 4096,
    "llama-3.2-1b": 4096,
    "qwen2.5-1.5b": 4096,
    "llama-3.2-3b": 4096,
    "qwen2.5-7b": 4096,
    "mistral-7b": 4096,
    "llama-3-8b": 4096,
    "gpt2-xl": 1024,
}  # and the longest sequence that is drawn
PRECISION = 0.004  # of the smallest device that is large enough


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Bytes of one job's GPU.

    Attributes:
        name, stage: of the job.
        allocated, reserved: the most of each, where nothing limits them.
        needed: the smallest device on which it does not run out of memory.
        expandable: the same, with PyTorch's ``expandable_segments``.
        room: what ``check`` wants beside its peak before it says that the job fits.
    """

    name: str
    stage: int
    allocated: int
    reserved: int
    needed: int
    expandable: int
    room: int

    @property
    def share(self) -> float:
        """Reserved beyond the most allocated, of that."""
        return self.reserved / self.allocated - 1

    @property
    def needed_share(self) -> float:
        """What the smallest device has beyond the most allocated, of that."""
        return self.needed / self.allocated - 1

    @property
    def expandable_share(self) -> float:
        """The same, with expandable segments."""
        return self.expandable / self.allocated - 1


def jobs(seed: int, count: int) -> Iterator[tuple[str, int, Job]]:
    """Jobs drawn from a seed, each with its name and stage."""
    draw = random.Random(seed)
    for _ in range(count):
        model = draw.choice(list(MODELS))
        stage = draw.choice((0, 1, 2, 2, 3, 3, 3))
        zero: dict[str, Any] = {"stage": stage}
        if stage and draw.random() < 1 / 3:
            zero["offload_optimizer"] = {"device": "cpu"}
        if draw.random() < 0.3:
            zero["overlap_comm"] = False
        config = {
            "bf16": {"enabled": True},
            "optimizer": {"type": "AdamW"},
            "zero_optimization": zero,
            "train_micro_batch_size_per_gpu": draw.choice((1, 2, 4, 8)),
            "gradient_accumulation_steps": draw.choice((1, 1, 4)),
        }
        flags = Flags(
            model=model,
            gpus_per_node=draw.choice((2, 4, 8)),
            gpu="h100-80gb",
            seq_len=draw.choice([n for n in (512, 1024, 2048, 4096) if n <= MODELS[model]]),
            checkpointing=draw.random() < 0.7,
            attention=draw.choice(("sdpa", "flash")),
            adapter="r=16,targets=all-linear" if draw.random() < 0.25 else None,
        )
        micro = config["train_micro_batch_size_per_gpu"]
        said = {k: v for k, v in vars(flags).items() if v is not None and k != "model"}
        yield f"{model} {zero} {micro} {said}", stage, without_config(config, flags)


def measured(name: str, stage: int, job: Job) -> Measured:
    """The allocator's figures of a job, by replay of its simulated run."""
    sizing = size(job)
    if sizing.plan is None:
        raise SystemExit(f"{name} cannot be planned")
    request = parent.request_of(job, rank=sizing.plan.rank, steps=2)
    found = parent.answer(replace(request, keep_events=True, gpu_bytes=parent.NO_LIMIT))
    events = [event for event in (Event(*e) for e in found["events"]) if event.device == GPU]
    whole = replay(events).peak
    return Measured(
        name=name,
        stage=stage,
        allocated=whole.allocated,
        reserved=whole.reserved,
        needed=_needed(events, whole, AllocatorSettings()),
        expandable=_needed(events, whole, AllocatorSettings(expandable_segments=True)),
        room=sizing.needs[Device.GPU].room,
    )


def _needed(events: list[Event], whole: MemoryPoint, settings: AllocatorSettings) -> int:
    low, high = whole.allocated - 1, whole.reserved
    while high - low > PRECISION * whole.allocated:
        middle = (low + high) // 2
        if replay(events, settings, capacity=middle).out_of_memory is None:
            high = middle
        else:
            low = middle
    return high


def table(rows: list[Measured]) -> str:
    """Shares by stage, in Markdown."""
    lines = [
        "| stage | jobs | reserved beyond allocated: median | most "
        "| needed beyond allocated: median | most | needed more than `check` leaves free "
        "| needed with expandable segments: median | most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for stage in (*sorted({row.stage for row in rows}), None):
        some = [row for row in rows if stage in (row.stage, None)]
        held, needed = [row.share for row in some], [row.needed_share for row in some]
        expandable = [row.expandable_share for row in some]
        tight = sum(row.needed > row.allocated + row.room for row in some)
        lines.append(
            f"| {'all' if stage is None else stage} | {len(some)} "
            f"| {statistics.median(held):.0%} | {max(held):.0%} "
            f"| {statistics.median(needed):.1%} | {max(needed):.0%} | {tight} "
            f"| {statistics.median(expandable):.1%} | {max(expandable):.0%} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=40, help="of each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    rows: list[Measured] = []
    for name, stage, job in chain.from_iterable(jobs(s, options.jobs) for s in options.seeds):
        rows.append(measured(name, stage, job))
        last = rows[-1]
        print(
            f"{last.allocated / GIB:.2f} GiB allocated, reserved {last.share:+.1%}, needed "
            f"{last.needed_share:+.1%}, expandable {last.expandable_share:+.1%}, "
            f"room {last.room / last.allocated:.1%}: {name}",
            flush=True,
        )
    print(table(rows))
    if options.write:
        about = __doc__.split("\n\n")[2].partition(" `--write`")[0]
        replace_section(f"## Reserve\n\n{about}\n\n{table(rows)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
