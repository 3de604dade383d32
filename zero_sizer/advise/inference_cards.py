"""Which GPUs carry a model's inference, by the precision of its weights, and how many it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.advise.cards import GPUS_A_NODE, Enough
from zero_sizer.config import document
from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import InputError
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.hardware.device import Device
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.ledger.capacity import Fit
from zero_sizer.parallel import laid_out
from zero_sizer.sizing import size

COUNTS = (1, 2, 4, 8, 16)
WAYS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "16 bits": {},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "nf4,double"},
}
"""Name -> flags; ``int8`` and ``int4`` are bitsandbytes' (nf4, double quantized)."""
NEW_TOKENS, PROMPT = 256, 1792
_FRUGAL = {
    "stage": 3,
    "stage3_prefetch_bucket_size": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
}


def carriers(
    gpus: tuple[Gpu, ...], model: str, seq_len: int | None = None
) -> Iterator[tuple[Gpu, dict[str, Enough | None]]]:
    """Every GPU with the fewest that fit in each of ``WAYS``; None where ``COUNTS`` end before.

    One sequence a GPU; several GPUs share the weights by ZeRO-3, and packed ones lie on one.
    """
    known: dict[tuple[object, ...], dict[str, Enough | None]] = {}
    for gpu in gpus:
        precision = _precision(gpu)
        key = (gpu.visible_bytes, gpu.context_bytes, blas_bytes(gpu), precision)
        if key not in known:
            known[key] = {way: _fewest(gpu, model, seq_len, way, precision) for way in WAYS}
        yield gpu, known[key]


def _precision(gpu: Gpu) -> str:
    """bf16, but fp16 before Ampere."""
    is_older = gpu.compute_capability is not None and gpu.compute_capability < (8, 0)
    return "fp16" if is_older else "bf16"


def _fewest(gpu: Gpu, model: str, seq_len: int | None, way: str, precision: str) -> Enough | None:
    values = {"precision": precision, **WAYS[way]}
    if way == "int4" and precision == "fp16":
        values["quantization"] += ",compute=float16"
    flags = _flags(gpu, model, seq_len, values)
    try:
        job = without_config({}, flags)
    except InputError:
        if "quantization" in WAYS[way]:  # the model has no layer that would be
            return None
        raise
    for count in COUNTS if job.model.quantization is None else COUNTS[:1]:
        found = _sized(job, count)
        if found is not None:
            return found
    return None


def _flags(gpu: Gpu, model: str, seq_len: int | None, values: Mapping[str, Any]) -> Flags:
    lengths: dict[str, Any] = {"prompt": PROMPT, "new_tokens": NEW_TOKENS}
    if seq_len is not None:
        lengths = {"seq_len": seq_len}
    return Flags(
        task=INFERENCE,
        model=model,
        gpu=gpu.name,
        gpus_per_node=1,
        batch_size=1,
        **lengths,
        **values,
    )


def _sized(job: Job, count: int) -> Enough | None:
    job = replace(job, cluster=job.cluster.of(laid_out(count, GPUS_A_NODE)))
    if count > 1:
        values = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": dict(_FRUGAL)}
        precision = job.workload.precision
        if precision != "fp32":
            values[str(precision)] = {"enabled": True}
        job = replace(job, document=document.from_mapping(values))
    sizing = size(job)
    need, found = sizing.needs[Device.GPU], sizing.capacities[Device.GPU]
    if not sizing.is_valid or need.fit(found) is not Fit.YES:
        return None
    return Enough(
        gpus=count,
        gpu_bytes=sizing.peaks[Device.GPU].num_bytes,
        host_bytes=sizing.peaks[Device.HOST].num_bytes,
    )
