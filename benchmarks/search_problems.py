"""Drawn problems for ``benchmarks/search.py``: a model on a cluster."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from zero_sizer import models
from zero_sizer.advise.config import default_config, usual_precision
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job
from zero_sizer.models.attention import fastest

MODELS = (
    "qwen2.5-0.5b", "llama-3.2-1b", "qwen2.5-1.5b", "llama-3.2-3b", "mistral-7b", "qwen2.5-7b",
    "llama-3-8b", "llama-2-13b", "opt-30b", "qwen2.5-32b", "llama-2-70b",
)  # fmt: skip
GPUS = (
    "t4", "l4", "a10g-24gb", "rtx-3090", "rtx-4090", "v100-32gb", "l40s", "a100-40gb",
    "a100-80gb", "h100-80gb", "h200-141gb",
)  # fmt: skip
HOSTS = ("32GiB", "64GiB", "128GiB", "256GiB", "512GiB", "1TiB")
LENGTHS = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One cluster and model."""

    model: str
    gpu: str
    nodes: int
    gpus: int
    host: str
    nvme: str | None
    seq_len: int

    @property
    def line(self) -> str:
        """The command line of it."""
        nvme = f" --nvme {self.nvme}" if self.nvme else ""
        return (
            f"--model {self.model} --gpu {self.gpu} --nodes {self.nodes} --gpus-per-node "
            f"{self.gpus} --host-memory {self.host}{nvme} --seq-len {self.seq_len}"
        )

    def job(self) -> Job:
        """Flash attention where model and card have it."""
        precision = usual_precision(self.gpu)
        family = models.load(self.model).arch.family
        flags = Flags(
            model=self.model,
            gpu=self.gpu,
            nodes=self.nodes,
            gpus_per_node=self.gpus,
            host_memory=self.host,
            nvme=self.nvme,
            seq_len=self.seq_len,
            attention=fastest(family, precision),
        )
        return read.without_config(default_config(precision), flags)


def problems(seed: int) -> Iterator[Problem]:
    """Endless problems."""
    draw = random.Random(seed)
    while True:
        model = draw.choice(MODELS)
        longest = 2048 if model.startswith("opt") else LENGTHS[-1]
        longest = 4096 if model.startswith("llama-2") else longest
        yield Problem(
            model=model,
            gpu=draw.choice(GPUS),
            nodes=draw.choice((1, 1, 2, 4)),
            gpus=draw.choice((1, 2, 4)),
            host=draw.choice(HOSTS),
            nvme=draw.choice((None, "1TB")),
            seq_len=draw.choice([length for length in LENGTHS if length <= longest]),
        )
