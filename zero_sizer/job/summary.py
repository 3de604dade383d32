"""Statements of a job besides its DeepSpeed config, as settings with origins."""

from zero_sizer.config.settings import Setting
from zero_sizer.job.fields import WORKLOAD
from zero_sizer.job.read import Job
from zero_sizer.models.spec import ModelSpec

_WORKLOAD = tuple(option.name for option in WORKLOAD if not option.in_config)
_USUAL = {option.name: option.usual for option in WORKLOAD if option.usual is not None}


def of(job: Job) -> dict[str, Setting]:
    """Model, cluster and workload by flag name, each with where its value comes from."""
    origins = {**job.cluster.origins, **job.workload.origins}
    found: dict[str, Setting] = {
        "model": Setting(job.model.name, job.model.origin),
        "world_size": Setting(job.cluster.world_size, "nodes x gpus_per_node"),
        "gpu": Setting(
            job.cluster.gpu.name if job.cluster.gpu else None, origins.get("gpu", "not stated")
        ),
    }
    for source, names in (
        (job.cluster, ("nodes", "gpus_per_node", "gpu_memory", "host_memory", "nvme")),
        (job.workload, _WORKLOAD),
    ):
        for name in names:
            value = getattr(source, name)
            found[name] = Setting(value, origins.get(name, "not stated"), value is None)
    measured = job.cluster.measured
    found["cluster_profile"] = Setting(
        measured.source if measured else None,
        measured.origin if measured else "not stated",
        measured is None,
    )
    for name, rate in job.cluster.rates.items():
        found[name] = Setting(rate, origins.get(name, "not stated"))
    if job.workload.images is not None:
        found["images"] = Setting(job.workload.images.about, found["images"].origin)
    found |= _changes_of_model(job.model)
    how = job.workload.checkpointing_how.about
    if job.workload.checkpointing and how:
        found["checkpointing"] = Setting(how, origins.get("checkpointing", "not stated"))
    return found | {name: usual for name, usual in _USUAL.items() if found[name].value is None}


def _changes_of_model(model: ModelSpec) -> dict[str, Setting]:
    """The adapter and the quantization, in peft's words and in the flags'."""
    adapter, how = model.adapter, model.quantization
    absent = Setting(None, "not stated", is_default=True)
    return {
        "adapter": Setting(adapter.to_peft(), adapter.origin) if adapter else absent,
        "quantization": Setting(how.to_json(), how.origin) if how else absent,
        "freeze": Setting(list(model.freeze.patterns), model.freeze.origin)
        if model.freeze
        else absent,
    }
