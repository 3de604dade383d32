"""Jobs for tests of advice."""

from typing import Any

from zero_sizer import job
from zero_sizer.advise.config import default_config
from zero_sizer.job import Flags, Job


def job_on(model: str, gpu: str, *, nodes: int = 1, gpus: int = 8, **flags: Any) -> Job:
    """AdamW in bf16 on nodes of one GPU type."""
    stated = {"host_memory": "1TiB", "seq_len": 2048, "attention": "flash", **flags}
    every = Flags(model=model, nodes=nodes, gpus_per_node=gpus, gpu=gpu, **stated)
    return job.without_config(default_config(), every)
