"""The job that a recording ran, read back from what it says of itself: no CONFIG is needed."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.config.document import from_mapping
from zero_sizer.config.workload import Checkpointing
from zero_sizer.dryrun.recording import Recording
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.job import fields
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, section, workload_of
from zero_sizer.job.readers import facts
from zero_sizer.models.changes import lora, lora_config
from zero_sizer.models.changes import quantization as packing
from zero_sizer.models.changes.freeze import with_freeze
from zero_sizer.models.changes.records import Freeze, Quantization
from zero_sizer.models.sources.hf_config import spec_of_fields
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.parallel import laid_out
from zero_sizer.units import DType
from zero_sizer.util import checked

_WHERE = "the recording"
_LOOP = ("micro_batch", "grad_accum", "seq_len", "attention", "sequences", "zero_init", "kernels")


def says_job(recording: Recording) -> bool:
    """True if the recording says which model was run with which config."""
    job = recording.job
    has_model = bool(job.get("hf_config") or job.get("parameters"))
    return has_model and isinstance(job.get("config"), Mapping)


def job_of(recording: Recording, flags: Flags | None = None) -> Job:
    """The job of a recording; what ``flags`` state wins.

    Raises:
        InputError: the recording does not say, or says what no recording does.
        UnsupportedError: the model has what is not modelled.
    """
    said, flags = recording.job, flags or Flags()
    if not says_job(recording):
        raise InputError(
            "the recording does not say which model was run",
            remedy="give CONFIG and --model",
            where=_WHERE,
        )
    try:
        loop = {name: said[name] for name in _LOOP if said.get(name) is not None}
        workload = workload_of(section(_stated(loop, said), fields.WORKLOAD, flags))
        return Job(
            document=from_mapping(said["config"], _WHERE),
            model=_model(said),
            cluster=assemble(section(_machines(recording), fields.CLUSTER, flags)),
            workload=workload,
            origins={"deepspeed": _WHERE, "model": _WHERE},
            findings=tuple(
                facts.own_loss(text) for text in checked.texts(said.get("left_out", ()), "left_out")
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a job of a run: {error}", where=_WHERE) from None


def _stated(loop: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Stated]:
    found = dict(loop)
    if "optimizer" not in said["config"] and said.get("optimizer"):
        found["optim"] = said["optimizer"]
    if isinstance(said.get("checkpointing"), bool):
        found["checkpointing"] = said["checkpointing"]
    how = said.get("checkpointing_how") or {}
    if found.get("checkpointing") and how:
        how = checked.mapping(how, "checkpointing_how")
        found["checkpointing"] = Checkpointing(**how).about or True
    return {
        option.name: Stated(option.parse(found[option.name], _WHERE), _WHERE)
        for option in fields.WORKLOAD
        if option.name in found
    }


def _machines(recording: Recording) -> dict[str, Stated]:
    said = recording.job
    per_node = said.get("local_world_size", recording.world_size)
    ranks = laid_out(recording.world_size, per_node)
    found = {"nodes": ranks.nodes, "gpus_per_node": ranks.ranks_per_node}
    for name, key in (("gpu", "gpu"), ("gpu_memory", "gpu_bytes"), ("host_memory", "host_bytes")):
        if said.get(key):
            found[name] = said[key]
    options = {option.name: option for option in fields.CLUSTER}
    return {name: Stated(options[name].parse(v, _WHERE), _WHERE) for name, v in found.items()}


def _model(said: Mapping[str, Any]) -> ModelSpec:
    name = checked.text(said.get("name", "the model"), "job.name")
    if said.get("hf_config"):
        raw = checked.mapping(said["hf_config"], "job.hf_config")
        spec = spec_of_fields(raw, name=name, where=_WHERE)
    else:
        tensors = tuple(map(_tensor, checked.items(said["parameters"], "job.parameters")))
        spec = ModelSpec(name=name, origin=_WHERE, parameters=tensors)
    if said.get("quantization"):
        how = checked.mapping(said["quantization"], "job.quantization")
        spec = packing.with_quantization(
            spec,
            Quantization(
                bits=checked.whole(how["bits"], "bits"),
                double=checked.flag(how["double"], "double"),
                storage=DType(how["storage"]),
                compute=DType(how["compute"]),
                origin=_WHERE,
            ),
        )
    if said.get("lora"):
        adapter = checked.mapping(said["lora"], "job.lora")
        spec = lora.with_adapter(spec, lora_config.from_fields(adapter, _WHERE))
    if said.get("freeze"):
        spec = with_freeze(spec, Freeze(checked.texts(said["freeze"], "job.freeze"), _WHERE))
    return spec


def _tensor(values: Any) -> Tensor:
    row = checked.mapping(values, "a tensor")
    dtype = row.get("dtype")
    sizes = checked.items(row.get("shape"), "a shape", most=8)
    return Tensor(
        name=checked.text(row.get("name"), "a tensor's name"),
        shape=tuple(checked.whole(size, "a size", most=2**40) for size in sizes),
        dtype=None if dtype is None else DType(dtype),
        trainable=checked.flag(row.get("trainable", True), "trainable"),
    )
