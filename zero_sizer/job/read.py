"""A job: config, model, cluster and workload, from a file and the flags that override it.

``CONFIG`` is a DeepSpeed JSON, or a job YAML::

    model: llama-3-8b
    deepspeed: ds_zero3.json      # or the mapping itself
    cluster: {nodes: 4, gpus_per_node: 8, gpu: h100-80gb, host_memory: 2TiB, nvme: 7TB}
    workload: {seq_len: 4096, micro_batch: 1, grad_accum: 8, checkpointing: true}
    adapter: lora/                # LoRA: an adapter_config.json, its folder, or its fields
    quantization: nf4,double      # of the frozen base, where its config.json does not say

``workload`` also holds how much is trained: ``tokens: 300B`` or ``samples: 2M``, ``epochs: 3``.
``checkpointing`` is true, false or words such as ``every-2,offload``; ``freeze``, beside it, a list
of patterns of parameters that are not trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import Checkpointing, Workload
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job import fields as stated
from zero_sizer.job.fields import Flags
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import shown

Config = str | Mapping[str, Any]
"""CONFIG: the path of a file, or what would stand in one."""

NONE_GIVEN = "none given"
"""Origin of the config where there is no CONFIG."""

_SECTIONS = ("model", "adapter", "quantization", "deepspeed", "cluster", "workload")
_ACCELERATE = ("distributed_type", "deepspeed_config", "compute_environment")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything the user said, read and checked one field at a time.

    Attributes:
        document: the DeepSpeed config as written.
        model: the model.
        cluster: the machines.
        workload: the training loop.
        origins: ``model`` and ``deepspeed`` -> where they were named.
    """

    document: Document
    model: ModelSpec
    cluster: Cluster
    workload: Workload
    origins: Mapping[str, str]


def read(config: Config, flags: Flags | None = None) -> Job:
    """The job that CONFIG and the flags describe; a flag wins over CONFIG.

    A mapping is a DeepSpeed config, or, where it has the key ``deepspeed``, what a job YAML holds;
    paths in it are relative to the current folder.

    Raises:
        InputError: anything unreadable or wrong, in one line with file and line.
    """
    flags = flags or Flags()
    path = config if isinstance(config, str) else ""
    file = _job_file(config)
    document = _config(config, file)
    cluster = assemble(_section("cluster", stated.CLUSTER, file, flags))
    reference = _model_reference(path, file, flags)
    workload = _section("workload", (*stated.WORKLOAD, stated.FREEZE), file, flags)
    frozen = workload.pop(stated.FREEZE.name, None)
    model = _adapted(_quantized(_load_model(reference, flags), file, flags), path, file, flags)
    return Job(
        document=document,
        cluster=cluster,
        workload=_workload(workload),
        model=_frozen(model, frozen),
        origins={"deepspeed": document.source, "model": reference.origin},
    )


def without_model(path: str) -> tuple[Document, Cluster | None, Workload]:
    """Config, cluster and workload of a file, where the model does not matter.

    Args:
        path: of a DeepSpeed JSON or a job YAML, which need not name a model.

    Returns:
        The cluster is None where the file states none.

    Raises:
        InputError: anything unreadable or wrong, in one line with file and line.
    """
    file = _job_file(path)
    document, flags = _config(path, file), Flags()
    cluster = _section("cluster", stated.CLUSTER, file, flags)
    workload = _section("workload", (*stated.WORKLOAD, stated.FREEZE), file, flags)
    workload.pop(stated.FREEZE.name, None)
    is_stated = {"nodes", "gpus_per_node", "hostfile"} & cluster.keys()
    return document, assemble(cluster) if is_stated else None, _workload(workload)


def model_of(flags: Flags) -> ModelSpec:
    """The model that the flags name, quantized and adapted as they say.

    Raises:
        InputError: anything wrong with a flag.
    """
    reference = _model_reference("", None, flags)
    model = _adapted(_quantized(_load_model(reference, flags), None, flags), "", None, flags)
    frozen = _section("workload", (stated.FREEZE,), None, flags).get(stated.FREEZE.name)
    return _frozen(model, frozen)


def without_config(values: Mapping[str, Any], flags: Flags) -> Job:
    """The job that the flags describe when there is no CONFIG; ``values`` stands in for it.

    Raises:
        InputError: no model, or anything wrong with a flag.
    """
    from zero_sizer.config import document

    reference = _model_reference("", None, flags)
    return Job(
        document=document.from_mapping(values, source="(no config)"),
        cluster=assemble(_section("cluster", stated.CLUSTER, None, flags)),
        workload=_workload(_section("workload", stated.WORKLOAD, None, flags)),
        model=model_of(flags),
        origins={"deepspeed": NONE_GIVEN, "model": reference.origin},
    )


def _job_file(config: Config) -> Document | None:
    """The YAML, or None when CONFIG is the DeepSpeed config itself."""
    if not isinstance(config, str):
        return _job_mapping(config)
    path = config
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        return None
    from zero_sizer.job import yaml_lines

    file = yaml_lines.load(path)
    if any(key in file.values for key in _ACCELERATE):
        named = file.get("deepspeed_config.deepspeed_config_file")
        raise InputError(
            "an accelerate config, which is not read",
            remedy=f"give {named if isinstance(named, str) else 'a DeepSpeed JSON'} instead, with "
            "--nodes (num_machines) and --gpus-per-node (num_processes / num_machines)",
            where=path,
        )
    stated.refuse_unknown(file, "", _SECTIONS)
    return file


def _job_mapping(config: Mapping[str, Any]) -> Document | None:
    """The job that a mapping describes; None where it is a DeepSpeed config."""
    from zero_sizer.config import document

    if "deepspeed" not in config:
        return None
    file = document.from_mapping(config)
    stated.refuse_unknown(file, "", _SECTIONS)
    return file


def _config(config: Config, file: Document | None) -> Document:
    """The DeepSpeed config: CONFIG itself, the one the YAML names, or the YAML's mapping."""
    from zero_sizer.config import document

    if file is None:
        if isinstance(config, str):
            return document.load(config)
        return document.from_mapping(config)
    path = config if isinstance(config, str) else ""
    value = file.get("deepspeed")
    if isinstance(value, Mapping):
        prefix = "deepspeed."
        lines = {
            key.removeprefix(prefix): line
            for key, line in file.lines.items()
            if key.startswith(prefix)
        }
        return Document(source=file.source, values=value, lines=lines)
    if not isinstance(value, str) or not value.strip():
        what = "no DeepSpeed config" if value is None else "deepspeed: is not a path or a mapping"
        raise InputError(
            what,
            remedy="add deepspeed: ds.json, or the config itself as a mapping",
            where=file.where("deepspeed"),
        )
    target = Path(path).parent / value
    if not target.exists():
        raise InputError(f"no file {str(target)!r}", where=file.where("deepspeed"))
    return document.load(str(target))


def _section(
    name: str, fields: tuple[stated.Field, ...], file: Document | None, flags: Flags
) -> dict[str, Stated]:
    """What flags and file state for one section."""
    found = stated.from_file(file, name, fields) if file is not None else {}
    for field in fields:
        value = getattr(flags, field.name, None)  # rates stand in a job file only
        if value is not None:
            flag = _flag_of(field, value)
            found[field.name] = Stated(field.parse(value, flag), flag)
    return found


def _flag_of(field: stated.Field, value: Any) -> str:
    """The option that was given: words about checkpointing have one of their own."""
    says_how = field.name == "checkpointing" and isinstance(value, str)
    return "--checkpointing-how" if says_how else field.flag


def _workload(found: Mapping[str, Stated]) -> Workload:
    found = _one_amount(found)
    values = {name: item.value for name, item in found.items()}
    how = values.get("checkpointing")
    if isinstance(how, Checkpointing):
        values |= {"checkpointing": True, "checkpointing_how": how}
    return Workload(**values, origins={name: item.origin for name, item in found.items()})


def _one_amount(found: Mapping[str, Stated]) -> Mapping[str, Stated]:
    """The statements with one amount of data, in tokens or in samples; a flag's wins.

    Raises:
        InputError: both are stated alike, or epochs of nothing.
    """
    if "tokens" in found and "samples" in found:
        flags = [n for n in ("tokens", "samples") if found[n].origin.startswith("--")]
        if len(flags) == 1:
            other = "samples" if flags == ["tokens"] else "tokens"
            return {name: item for name, item in found.items() if name != other}
        raise InputError(
            f"{found['samples'].origin} says how much is trained already",
            remedy="state the tokens or the samples",
            where=found["tokens"].origin,
        )
    if "epochs" in found and not {"tokens", "samples"} & found.keys():
        raise InputError(
            "epochs of what?",
            remedy="add --samples or --tokens, or either under workload:",
            where=found["epochs"].origin,
        )
    return found


def _model_reference(path: str, file: Document | None, flags: Flags) -> Stated:
    """What names the model; a path in the YAML is relative to the YAML."""
    if isinstance(flags.model, Mapping):
        return Stated(_numbers(flags.model, "--model"), "--model")
    if flags.model is not None:
        return Stated(flags.model, "--model")
    value: Any = file.get("model") if file is not None else None
    if file is None or value is None:
        raise InputError(
            "no model: a DeepSpeed config does not name one",
            remedy="add --model llama-3-8b, a config.json, module:factory or params=7e9,layers=32"
            if file is None
            else "add model: llama-3-8b, or --model",
            where=path,
        )
    where = file.where("model")
    if isinstance(value, Mapping):
        return Stated(_numbers(value, where), where)
    if not isinstance(value, str) or not value.strip():
        raise InputError("model: is not a name, a path or numbers", where=where)
    return Stated(model_beside(path, value), where)


def model_beside(path: str, value: str) -> str:
    """Name of a model in the YAML at ``path``; one that is a path is relative to the YAML."""
    beside = Path(path).parent / value
    is_path = "/" in value or Path(value).suffix in (".json", ".safetensors")
    return str(beside) if is_path and beside.exists() else value


def _numbers(value: Mapping[str, Any], where: str) -> str:
    """``params=7e9,layers=32`` of a mapping."""
    for key, item in value.items():
        if not key.isidentifier() or isinstance(item, bool) or not isinstance(item, int | float):
            raise InputError(f"model.{key}: {shown(item)} is not a number", where=where)
    return ",".join(f"{key}={item}" for key, item in value.items())


def _load_model(reference: Stated, flags: Flags) -> ModelSpec:
    from zero_sizer import models

    may_run = reference.origin == "--model" or bool(flags.allow_code)
    try:
        return models.load(reference.value, allow_code=may_run)
    except InputError as error:
        if error.where not in ("", "--model"):
            raise
        raise InputError(error.message, remedy=error.remedy, where=reference.origin) from None


def _quantized(spec: ModelSpec, file: Document | None, flags: Flags) -> ModelSpec:
    """The model as a flag, the YAML or its own config.json says that its weights are stored."""
    value: Any = file.get("quantization") if file is not None else None
    own = spec.hf_config.get("quantization_config")
    if flags.quantization is None and value is None and own is None:
        return spec
    from zero_sizer.models.changes import quantization as quantized

    where = file.where("quantization") if file is not None else ""
    if flags.quantization is not None:
        found = quantized.read(flags.quantization, "--quantization")
    elif isinstance(value, str):
        found = quantized.read(value, where)
    elif value is not None:
        raise InputError("quantization: is not text such as nf4,double", where=where)
    elif isinstance(own, Mapping):
        stored = quantized.from_fields(own, f"{spec.origin}: quantization_config")
        if stored is None:
            return spec
        found = stored
    else:
        raise InputError("quantization_config is not a mapping", where=spec.origin)
    return quantized.with_quantization(spec, found)


def _adapted(spec: ModelSpec, path: str, file: Document | None, flags: Flags) -> ModelSpec:
    """The model under the adapter that a flag or the YAML names, if one does."""
    value: Any = file.get("adapter") if file is not None else None
    if flags.adapter is None and value is None:
        return spec
    from zero_sizer.models.changes import lora
    from zero_sizer.models.changes import lora_config as adapter

    if flags.adapter is not None:
        return lora.with_adapter(spec, adapter.read(flags.adapter, "--adapter"))
    where = file.where("adapter") if file is not None else path
    if isinstance(value, Mapping):
        return lora.with_adapter(spec, adapter.from_fields(value, where))
    if not isinstance(value, str):
        raise InputError("adapter: is not a path or a mapping", where=where)
    beside = Path(path).parent / value
    found = str(beside) if "=" not in value and beside.exists() else value
    return lora.with_adapter(spec, adapter.read(found, where))


def _frozen(spec: ModelSpec, said: Stated | None) -> ModelSpec:
    """The model without what is stated as not trained."""
    if said is None:
        return spec
    from zero_sizer.models.changes import freeze, records

    return freeze.with_freeze(spec, records.Freeze(said.value, said.origin))
