"""Which GPUs carry a model's inference, by the precision of its weights, and how many it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Any

from zero_sizer.advise.cards import GPUS_A_NODE, Enough, Sized, sized
from zero_sizer.config import document
from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import InputError
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.parallel import laid_out
from zero_sizer.sizing import size
from zero_sizer.util.records import dataclass

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
    kinds: dict[tuple[object, ...], dict[str, _Way]] = {}
    for gpu in gpus:
        precision = _precision(gpu)
        alike = (gpu.context_bytes, blas_bytes(gpu), precision)
        if alike not in kinds:
            kinds[alike] = {way: _way(gpu, model, seq_len, way, precision) for way in WAYS}
        yield gpu, {name: way.fewest(gpu.visible_bytes) for name, way in kinds[alike].items()}


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One way on GPUs that differ in their memory alone, which says nothing of what it needs.

    Attributes:
        job: on one GPU; None where the model has no layer that would be packed so.
        known: what has been sized of it, by number of GPUs.
    """

    job: Job | None
    known: dict[int, Sized | None] = field(default_factory=dict)

    def fewest(self, memory: int) -> Enough | None:
        """The fewest GPUs with so many bytes each that carry it."""
        if self.job is None:
            return None
        for count in COUNTS if self.job.model.quantization is None else COUNTS[:1]:
            if count not in self.known:
                self.known[count] = _sized(self.job, count)
            found = self.known[count]
            if found is not None and found.fits(memory):
                return found.enough
        return None


def _precision(gpu: Gpu) -> str:
    """bf16, but fp16 before Ampere."""
    is_older = gpu.compute_capability is not None and gpu.compute_capability < (8, 0)
    return "fp16" if is_older else "bf16"


def _way(gpu: Gpu, model: str, seq_len: int | None, way: str, precision: str) -> _Way:
    values = {"precision": precision, **WAYS[way]}
    if way == "int4" and precision == "fp16":
        values["quantization"] += ",compute=float16"
    flags = _flags(gpu, model, seq_len, values)
    try:
        return _Way(job=without_config({}, flags))
    except InputError:
        if "quantization" in WAYS[way]:  # the model has no layer that would be
            return _Way(job=None)
        raise


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


def _sized(job: Job, count: int) -> Sized | None:
    job = replace(job, cluster=job.cluster.of(laid_out(count, GPUS_A_NODE)))
    if count > 1:
        values = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": dict(_FRUGAL)}
        precision = job.workload.precision
        if precision != "fp32":
            values[str(precision)] = {"enabled": True}
        job = replace(job, document=document.from_mapping(values))
    return sized(size(job), count)
