"""Inference as ``check`` answers it beside the simulated run, over jobs drawn at random.

    python benchmarks/inference_parity.py [--jobs N] [--seed S] [--zero [--codes]] [--write]
    python benchmarks/inference_parity.py --tensor [--jobs N] [--seed S] [--write]

Every job is a bundled model of a traced structure, in some precision, batch, prompt and number of
new tokens; with ``--zero`` under ZeRO-3 on some ranks, offloaded to the host or NVMe or not, and
with ``--codes`` quantized by DeepSpeed itself; with ``--tensor`` cut over some ranks by AutoTP of
``init_inference``, of structures whose heads need not fill the hidden width.
transformers' ``generate`` runs on the simulated GPU, whole models unless ``--layers`` cuts them.
Prints a line a phase and the largest error of each; exits with 1 where one is above ``LIMIT``.
``--write`` puts the jobs into ``benchmarks/inference_parity.md``.

Of the host, prefill and decode are compared: while the engine is built, DeepSpeed asks for the pool
of NVMe's buffers twice, and never touches the first.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from zero_sizer import models
from zero_sizer.activations import inference
from zero_sizer.config.workload import INFERENCE
from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import InputError, ZeroSizerError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.ledger.moments import Phase
from zero_sizer.ledger.peak import phase_peaks, totals
from zero_sizer.models.changes import tensor_slices
from zero_sizer.models.positions import longest_sequence
from zero_sizer.plan.inference import plan_inference
from zero_sizer.sizing import size

LIMIT = 0.01
NOT_SIMULATED = ("cublas_workspace",)  # a kernel library's, which fake tensors never call
PAGE = Path(__file__).parent / "inference_parity.md"
_HEAD = """# Inference beside the simulated run

Written by `inference_parity.py --write`. Errors are of the peak of each phase, positive where
`check` says more. A job is a model, a precision, an attention, batch x prompt + new tokens; under
ZeRO-3 the ranks, and where the parameters lie.
"""
REQUESTS = 2  # ZeRO-3 knows the order of modules from the first on
_PHASES = (Phase.INIT, Phase.PREFILL, Phase.DECODE)
_LARGEST = 30e9  # parameters: larger ones only take longer


class Row(NamedTuple):
    """One phase of one job: bytes of the peak, predicted and simulated.

    ``phase`` is ``init``, ``prefill`` or ``decode``, and ``... on host`` for that of host memory.
    """

    job: str
    phase: str
    predicted: int
    simulated: int

    @property
    def error(self) -> float:
        """Relative, signed."""
        return (self.predicted - self.simulated) / self.simulated


def draw(random_: random.Random, *, zero: bool, codes: bool = False) -> tuple[str, Job]:
    """A job and what to call it."""
    name = random_.choice(traced())
    spec = models.load(name)
    how = random_.choice((None, None, None, "nf4,double", "int8")) if not zero else None
    if spec.arch.num_experts or spec.arch.family in ("gpt2", "bloom"):
        how = None
    # in fp16 DeepSpeed's codes take a kernel that is compiled for a GPU
    precision = random_.choice(("bf16", "bf16", "bf16" if codes else "fp16", "fp32"))
    attention = random_.choice(("sdpa", "eager", "flash") if precision != "fp32" else ("sdpa",))
    longest = longest_sequence(spec) or 8192
    new = random_.choice((0, 1, 2, 3, 7, 12))
    prompt = random_.randint(8, min(longest - new, 2048 if attention == "eager" else 6000))
    batch = random_.choice((1, 1, 2, 4, 8))
    ranks = random_.choice((1, 2, 4, 8)) if zero else 1
    flags = Flags(
        task=INFERENCE,
        model=name,
        quantization=how,
        precision=precision,
        attention=attention,
        prompt=prompt,
        new_tokens=new,
        batch_size=batch,
        gpus_per_node=ranks,
        zero_init=(codes or random_.choice((True, False))) if zero else None,
    )
    config = _zero(random_, precision) if zero else {}
    if codes:
        bits = random_.choice((4, 8))
        how = {"num_bits": bits, "group_size": 32, "group_dim": 1, "symmetric": False}
        config["weight_quantization"] = {"quantized_initialization": how}
        how = f"{bits} bits"
    try:
        job = without_config(config, flags)
    except InputError:  # nothing of it can be quantized
        how, job = None, without_config(config, replace(flags, quantization=None))
    place = config.get("zero_optimization", {}).get("offload_param", {}).get("device", "")
    label = f"{name} {f'{how} ' if how else ''}{precision} {attention} {batch}x{prompt}+{new}"
    return f"{label} zero3 x{ranks} {place}".rstrip() if zero else label, job


def draw_tensor(random_: random.Random) -> tuple[str, Job]:
    """A job of ``init_inference`` and what to call it."""
    name = random_.choice([name for name in traced() if _has_slices(name)])
    precision = random_.choice(("bf16", "fp16", "fp32"))
    attention = random_.choice(("sdpa", "eager", "flash") if precision != "fp32" else ("sdpa",))
    ranks = random_.choice((2, 3, 4, 8))
    batch, prompt = random_.choice((1, 1, 2, 4, 8)), random_.randint(8, 2048)
    new = random_.choice((0, 1, 2, 3, 7))
    flags = Flags(
        task=INFERENCE,
        model=name,
        precision=precision,
        attention=attention,
        prompt=prompt,
        new_tokens=new,
        batch_size=batch,
        tensor_parallel=ranks,
    )
    return f"{name} {precision} {attention} {batch}x{prompt}+{new} over {ranks}", without_config(
        {}, flags
    )


def _has_slices(name: str) -> bool:
    """True if the profile knows what a slice holds."""
    _, own = tensor_slices.highest(models.load(name), 2)
    return inference.profiled(own) is own and models.load(name).arch.family != "gpt2"


def _zero(random_: random.Random, precision: str) -> dict[str, Any]:
    section: dict[str, Any] = {"stage": 3}
    place = random_.choice((None, None, "cpu", "cpu", "nvme"))
    if place is not None:
        section["offload_param"] = {"device": place, "pin_memory": random_.random() < 0.5}
    if place == "nvme":  # enough, and large enough, for what a module owns
        buffers = {"nvme_path": "/nvme", "buffer_size": 2 * 10**9 + random_.randint(0, 10**6)}
        section["offload_param"] |= buffers | {"buffer_count": random_.choice((5, 8, 20))}
    if random_.random() < 0.3:
        section |= {"stage3_max_live_parameters": 0, "stage3_max_reuse_distance": 0}
    if random_.random() < 0.3:
        section["stage3_prefetch_bucket_size"] = random_.choice((0, 10**6, 10**9))
    config: dict[str, Any] = {"train_micro_batch_size_per_gpu": "auto"}
    if precision != "fp32":
        config[precision] = {"enabled": True}
    return {**config, "zero_optimization": section}


def traced() -> list[str]:
    """Bundled decoders of which a profile is known."""
    found = []
    for name in models.bundled_names():
        spec = models.load(name)
        is_small = spec.num_params < _LARGEST
        if is_small and inference.load(spec) is not None and spec.arch.family != "bert":
            found.append(name)
    return found


def compare(jobs: Sequence[tuple[str, Job]]) -> Iterator[Row]:
    """Every phase of every job that the simulation runs."""
    with tempfile.TemporaryDirectory() as folder:
        requests = [
            request_of(job, rank=_rank(job), steps=REQUESTS, nvme_path=folder) for _, job in jobs
        ]
        answers = run_requests(requests)
    for (name, job), answer in zip(jobs, answers, strict=True):
        if isinstance(answer, ZeroSizerError):
            print(f"refused: {name}: {answer}", flush=True)
            continue
        predicted = _predicted(job)
        simulated: dict[str, int] = {}
        for record in answer.ranks[0].phases:
            for device in (Device.GPU, Device.HOST):
                name_of = _name_of(record.name, device)
                peak = record.device[device.value]["max_allocated"]
                simulated[name_of] = max(simulated.get(name_of, 0), peak)
        for phase, peak in simulated.items():
            if peak and phase in predicted:
                yield Row(name, phase, predicted[phase], peak)


def _rank(job: Job) -> int:
    plan = plan_inference(job).plan
    return plan.rank if plan is not None else 0


def _predicted(job: Job) -> dict[str, int]:
    allocations = [a for a in size(job).allocations if a.name not in NOT_SIMULATED]
    moments = totals(allocations, 1)
    found = {}
    for device in (Device.GPU, Device.HOST):
        for phase, peak in phase_peaks(moments[device], _PHASES).items():
            if device is Device.GPU or (phase is not Phase.INIT and peak):
                found[_name_of(phase.value, device)] = peak
    return found


def _name_of(phase: str, device: Device) -> str:
    return phase if device is Device.GPU else f"{phase} on {device.value}"


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown: a line a job, with the error of each phase."""
    phases = list(dict.fromkeys(row.phase for row in rows))
    jobs: dict[str, dict[str, Row]] = {}
    for row in rows:
        jobs.setdefault(row.job, {})[row.phase] = row
    lines = [f"| job | {' | '.join(phases)} |", f"|---|{'---|' * len(phases)}"]
    for job, found in jobs.items():
        cells = (f"{found[p].error:+.3%}" if p in found else "" for p in phases)
        lines.append(f"| {job} | {' | '.join(cells)} |")
    worst = (max((r for r in rows if r.phase == p), key=lambda r: abs(r.error)) for p in phases)
    lines.append(f"| **largest** | {' | '.join(f'**{row.error:+.3%}**' for row in worst)} |")
    return lines


def write(heading: str, command: str, rows: Sequence[Row]) -> None:
    """Puts the table under its heading, in the place of the one before."""
    known = PAGE.read_text("utf-8") if PAGE.exists() else _HEAD
    parts = known.split("\n## ")
    kept = [part for part in parts if not part.startswith(heading)]
    body = "\n".join(table(rows))
    kept.append(f"{heading}\n\n`{command}`\n\n{body}\n")
    PAGE.write_text("\n## ".join(kept), "utf-8")


def main() -> int:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, help="keep only so many blocks")
    parser.add_argument("--zero", action="store_true", help="under ZeRO-3")
    parser.add_argument("--codes", action="store_true", help="in DeepSpeed's own 4 or 8 bits")
    parser.add_argument("--tensor", action="store_true", help="by AutoTP of init_inference")
    parser.add_argument("--write", action="store_true", help="write the table")
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    jobs = [
        draw_tensor(random_)
        if options.tensor
        else draw(random_, zero=options.zero or options.codes, codes=options.codes)
        for _ in range(options.jobs)
    ]
    if options.layers:
        jobs = [(name, cut_job(job, options.layers)) for name, job in jobs]
    worst: dict[str, Row] = {}
    rows: list[Row] = []
    for start in range(0, len(jobs), 12):
        for row in compare(jobs[start : start + 12]):
            rows.append(row)
            print(f"{row.error:+8.4%} {row.phase:8} {row.simulated:>15,} {row.job}", flush=True)
            if row.phase not in worst or abs(row.error) > abs(worst[row.phase].error):
                worst[row.phase] = row
    for phase, row in worst.items():
        print(f"largest in {phase}: {row.error:+.4%} ({row.job})")
    if options.write:
        heading = "ZeRO-Inference" if options.zero else "Whole models on a GPU"
        heading = "DeepSpeed's own codes" if options.codes else heading
        heading = "AutoTP of init_inference" if options.tensor else heading
        command = " ".join(["python benchmarks/inference_parity.py", *sys.argv[1:]])
        write(heading, command, rows)
    return int(any(abs(row.error) > LIMIT for row in worst.values()))


if __name__ == "__main__":
    sys.exit(main())
