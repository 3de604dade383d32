"""Models that are no plain decoder, beside the simulated engine: stages 0 to 3, three batches each.

    python benchmarks/other_models.py [--models NAME ...] [--whole | --seeing] [--write]

bf16, 8 ranks, sdpa attention, no checkpointing; inputs as `check` takes them from the config: 30 s
of audio for Whisper, 224 x 224 for ViT, 336 x 336 for LLaVA, 1024 x 1024 for Qwen2.5-VL and SDXL,
captions of 77 tokens for CLIP and of 64 for SigLIP.
Whisper, T5, LLaVA and Qwen2.5-VL are cut to 4 blocks of each stack, at full width;
ViT, CLIP, SigLIP and the UNet are whole. CLIP's scale is given the dimension without which
DeepSpeed does not take it. `--whole` leaves all blocks, for one batch at stages 2 and 3. The rank
whose GPU needs most is simulated. `--seeing` asks the families of Qwen-VL and LLaVA in other
attentions, precisions and images, without tracing. `--write` puts the table into
benchmarks/results.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from cold_start import replace_section
from lora_models import LIMIT

from zero_sizer.activations.select import is_closed_form
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
    precision: str = "bf16"
    images: str | None = None
    factory: str = ""

    @property
    def name(self) -> str:
        """As the table of ``--seeing`` has it."""
        return f"{self.model}, {self.precision}, {self.attention}, {self.images}"


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


_LARGE, _SEVERAL, _CUT = "1,size=1036x1036", "3,size=448x616", "2,size=560x700"
SEEING = tuple(
    Case(model, (1, 2, 4), 2560, 8 if "2.5" in model else 4, attention, precision, images)
    for model in ("qwen2-vl-2b", "qwen2-vl-7b", "qwen2.5-vl-3b", "qwen2.5-vl-7b", "llava-1.5-7b")
    for precision, attention, images in (
        ("bf16", "sdpa", _LARGE),
        ("bf16", "eager", _SEVERAL),
        ("fp32", "sdpa", _CUT),
        ("autocast", "sdpa", _SEVERAL),
    )
)
PRECISIONS = {
    "bf16": {"bf16": {"enabled": True}},
    "fp32": {},
    "autocast": {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
}


def job_of(case: Case, stage: int, batch: int, layers: int | None) -> Job:
    """One job of a case."""
    config = {
        **PRECISIONS[case.precision],
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


_ABOUT_SEEING = """Peaks as the families answer, without torch; 4 blocks of each stack, 8 of
Qwen2.5-VL's, the last of which in its tower sees the image whole; 2,560 tokens; each name with
precision, attention and images of a sample."""


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


def measured(jobs: dict[int, Job], factory: str = "", *, traces: bool = True) -> Iterator[Row]:
    """Prediction and simulation of the jobs of some batches, of what ``factory`` builds if any."""
    found = {batch: _sized(job) if traces else size(job) for batch, job in jobs.items()}
    if not traces and any(is_closed_form(of.plan) for of in found.values() if of.plan is not None):
        raise UnansweredError
    ranks = {batch: sizing.plan.rank for batch, sizing in found.items() if sizing.plan is not None}
    requests = [request_of(job, rank=ranks[batch], steps=2) for batch, job in jobs.items()]
    if factory:
        requests = [replace(request, hf_config={}, factory=factory) for request in requests]
    for (batch, sizing), answer in zip(found.items(), run_requests(requests), strict=True):
        if isinstance(answer, ZeroSizerError):
            raise SystemExit(f"batch {batch}: {answer}")
        yield Row(batch, sizing.peaks[Device.GPU].num_bytes, answer.first.peak()["gpu"])


class UnansweredError(Exception):
    """No family answers a case."""


def _sized(job: Job) -> Sizing:
    return with_profile(size(job), lambda line: print(line, flush=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--whole", action="store_true", help="all blocks")
    which.add_argument("--seeing", action="store_true", help="families of Qwen-VL and LLaVA")
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    lines, worst = [], 0.0
    cases = SEEING if options.seeing else CASES
    for case in (c for c in cases if not options.models or c.model in options.models):
        layers = None if options.whole else case.layers
        batches = case.batches[1:2] if options.whole else case.batches
        for stage in (2, 3) if options.whole else (0, 1, 2, 3):
            jobs = {batch: job_of(case, stage, batch, layers) for batch in batches}
            try:
                rows = list(measured(jobs, case.factory, traces=not options.seeing))
            except UnansweredError:
                print(f"no family answers {case.name}", flush=True)
                break
            worst = max(worst, *(abs(row.error) for row in rows))
            name = case.name if options.seeing else next(iter(jobs.values())).model.name
            lines.append(f"| {name} | {stage} | " + " | ".join(map(str, rows)) + " |")
            print(lines[-1], flush=True)
    if options.write:
        about = __doc__.split("\n\n")[2].partition(" `--write`")[0]
        columns = 1 if options.whole else 3
        head = "| model | stage | samples: simulated GiB (error) |" + " |" * (columns - 1) + "\n"
        table = head + "|---" * (2 + columns) + "|\n" + "\n".join(lines) + "\n"
        title = "## Models that are no plain decoder"
        if options.seeing:
            title, about = "## Models that see, in every attention and precision", _ABOUT_SEEING
        if options.whole:
            title, about = f"{title}, whole", "All blocks, one batch; else as in the section above."
        replace_section(f"{title}\n\n{about}\n\n{table}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
