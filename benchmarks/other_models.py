"""Models that are no plain decoder, beside the simulated engine: stages 0 to 3, three batches each.

    python benchmarks/other_models.py [--models NAME ...] [--whole] [--write]

bf16, 8 ranks, sdpa attention, no checkpointing; inputs as `check` takes them from the config: 30 s
of audio for Whisper, 224 x 224 for ViT, 336 x 336 for LLaVA, 1024 x 1024 for Qwen2.5-VL and SDXL,
captions of 77 tokens for CLIP and of 64 for SigLIP.
Whisper, T5, LLaVA and Qwen2.5-VL are cut to 4 blocks of each stack, at full width;
ViT, CLIP, SigLIP and the UNet are whole. CLIP's scale is given the dimension without which
DeepSpeed does not take it. `--whole` leaves all blocks, for one batch at stages 2 and 3. The rank
whose GPU needs most is simulated. `--write` puts the table into benchmarks/results.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from cold_start import replace_section
from lora_models import LIMIT

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import ZeroSizerError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.questions.profile import with_profile
from zero_sizer.sizing import Sizing, size
from zero_sizer.units import GIB


class Case(NamedTuple):
    """One model and how it is fed."""

    model: str
    batches: tuple[int, int, int]
    seq_len: int | None = None
    layers: int | None = 4
    attention: str = "sdpa"
    images: str | None = None
    factory: str = ""


CASES = (
    Case("whisper-large-v3", (2, 8, 16), 448),
    Case("vit-base", (1, 16, 64), layers=None),
    Case("llava-1.5-7b", (1, 2, 4), 1024),
    Case("qwen2.5-vl-7b", (1, 2, 4), 2048),
    Case("clip-vit-large", (2, 16, 64), 77, layers=None, factory="clip_models:large"),
    Case("siglip-so400m", (2, 16, 64), 64, layers=None),
    Case("t5-large", (2, 8, 16), 512),
    Case("sdxl-unet", (1, 2, 4), layers=None),
)


def job_of(case: Case, stage: int, batch: int, layers: int | None) -> Job:
    """One job of a case."""
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {"stage": stage},
        "train_micro_batch_size_per_gpu": batch,
    }
    flags = Flags(
        model=case.model,
        gpus_per_node=8,
        gpu="a100-80gb",
        seq_len=case.seq_len,
        checkpointing=False,
        attention=case.attention,
        images=case.images,
        sequences="equal",
    )
    return cut_job(without_config(config, flags), layers)


class Row(NamedTuple):
    """Bytes of the GPU's peak."""

    batch: int
    predicted: int
    simulated: int

    @property
    def error(self) -> float:
        """Relative, of the prediction."""
        return self.predicted / self.simulated - 1

    def __str__(self) -> str:
        return f"{self.batch}: {self.simulated / GIB:.3f} ({100 * self.error:+.2f} %)"


def measured(jobs: dict[int, Job], factory: str = "") -> Iterator[Row]:
    """Prediction and simulation of the jobs of some batches, of what ``factory`` builds if any."""
    found = {batch: _sized(job) for batch, job in jobs.items()}
    ranks = {batch: sizing.plan.rank for batch, sizing in found.items() if sizing.plan is not None}
    requests = [request_of(job, rank=ranks[batch], steps=2) for batch, job in jobs.items()]
    if factory:
        requests = [replace(request, hf_config={}, factory=factory) for request in requests]
    for (batch, sizing), answer in zip(found.items(), run_requests(requests), strict=True):
        if isinstance(answer, ZeroSizerError):
            raise SystemExit(f"batch {batch}: {answer}")
        yield Row(batch, sizing.peaks[Device.GPU].num_bytes, answer.first.peak()["gpu"])


def _sized(job: Job) -> Sizing:
    return with_profile(size(job), lambda line: print(line, flush=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[case.model for case in CASES])
    parser.add_argument("--whole", action="store_true", help="all blocks")
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    lines, worst = [], 0.0
    for case in (case for case in CASES if case.model in options.models):
        layers = None if options.whole else case.layers
        batches = case.batches[1:2] if options.whole else case.batches
        for stage in (2, 3) if options.whole else (0, 1, 2, 3):
            jobs = {batch: job_of(case, stage, batch, layers) for batch in batches}
            rows = list(measured(jobs, case.factory))
            worst = max(worst, *(abs(row.error) for row in rows))
            name = next(iter(jobs.values())).model.name
            lines.append(f"| {name} | {stage} | " + " | ".join(map(str, rows)) + " |")
            print(lines[-1], flush=True)
    if options.write:
        about = __doc__.split("\n\n")[2].partition(" `--write`")[0]
        columns = 1 if options.whole else 3
        head = "| model | stage | samples: simulated GiB (error) |" + " |" * (columns - 1) + "\n"
        table = head + "|---" * (2 + columns) + "|\n" + "\n".join(lines) + "\n"
        title = "## Models that are no plain decoder"
        if options.whole:
            title, about = f"{title}, whole", "All blocks, one batch; else as in the section above."
        replace_section(f"{title}\n\n{about}\n\n{table}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
