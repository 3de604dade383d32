"""Jobs for tests of advice."""

from typing import Any

from zero_sizer import models
from zero_sizer.advise.config import default_config
from zero_sizer.hardware import catalog
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job
from zero_sizer.models.attention import FLASH, LACKS, SDPA
from zero_sizer.models.positions import longest_sequence


def job_on(model: str, gpu: str, *, nodes: int = 1, gpus: int = 8, **flags: Any) -> Job:
    """AdamW in bf16 on nodes of one GPU type; flash attention where model and GPU have it."""
    spec = models.load(model)
    generation = catalog.find(gpu).compute_capability
    has_flash = FLASH not in LACKS.get(spec.arch.family, ()) and (generation or (8, 0)) >= (8, 0)
    stated = {
        "host_memory": "1TiB",
        "seq_len": min(2048, longest_sequence(spec) or 2048),
        "attention": FLASH if has_flash else SDPA,
        **flags,
    }
    every = Flags(model=model, nodes=nodes, gpus_per_node=gpus, gpu=gpu, **stated)
    return read.without_config(default_config(), every)
