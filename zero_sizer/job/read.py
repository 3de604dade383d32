"""A job: config, model, cluster and workload, from a file and the flags that override it.

``CONFIG`` is a DeepSpeed JSON, a file of another tool (``readers``), or a job YAML::

    model: llama-3-8b
    deepspeed: ds_zero3.json      # or the mapping itself
    cluster: {nodes: 4, gpus_per_node: 8, gpu: h100-80gb, host_memory: 2TiB, nvme: 7TB}
    workload: {seq_len: 4096, micro_batch: 1, grad_accum: 8, checkpointing: true}
    adapter: lora/                # LoRA: an adapter_config.json, its folder, or its fields
    quantization: nf4,double      # of the frozen base, where its config.json does not say

``workload`` also holds how much is trained: ``tokens: 300B`` or ``samples: 2M``, ``epochs: 3``.
With ``task: inference`` it holds ``prompt``, ``new_tokens`` and ``batch_size``; ``deepspeed`` is
not needed. ``checkpointing`` is true, false or words such as ``every-2,offload``; ``freeze``,
beside it, a list of patterns of parameters that are not trained.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.config.workload import INFERENCE, Checkpointing, Workload
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Finding
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job import fields as stated
from zero_sizer.job.fields import Flags
from zero_sizer.job.inference import settled
from zero_sizer.job.statements import (
    NODES_UNKNOWN,
    NONE_GIVEN,
    VARIABLE_UNKNOWN,
    Statements,
)
from zero_sizer.models.changes.records import BITSANDBYTES
from zero_sizer.models.known import known
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.records import dataclass

Config = str | Mapping[str, Any]
"""CONFIG: the path of a file, or what would stand in one."""

NO_CONFIG = "(no config)"


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything the user said, read and checked one field at a time.

    Attributes:
        document: the DeepSpeed config as written.
        model: the model.
        cluster: the machines.
        workload: the training loop.
        origins: ``model`` and ``deepspeed`` -> where they were named.
        said: what CONFIG said, before the flags.
        findings: what its reader found.
    """

    document: Document
    model: ModelSpec
    cluster: Cluster
    workload: Workload
    origins: Mapping[str, str]
    said: Statements = Statements()
    findings: tuple[Finding, ...] = ()


Instead = Callable[[str | None], Mapping[str, Any]]
"""The DeepSpeed config where a file names none, of the precision that the file states."""


def read(config: Config, flags: Flags | None = None, *, instead: Instead | None = None) -> Job:
    """The job that CONFIG and the flags describe; a flag wins over CONFIG.

    A mapping is a DeepSpeed config, or, where it has the key ``deepspeed``, what a job YAML holds;
    paths in it are relative to the current folder.

    Args:
        config: CONFIG.
        flags: statements outside it.
        instead: the DeepSpeed config where another tool's file names none.

    Raises:
        InputError: anything unreadable or wrong, in one line with file and line.
        UnsupportedError: a file of a tool that is not read.
    """
    from zero_sizer.job.readers import recognise

    flags = flags or Flags()
    said = recognise.read(config)
    if said.document is not None:
        return _job(said, flags, said.document, is_named=True)
    if instead is None:
        _require_known(said, "deepspeed", "DeepSpeed config")
        if said.makes_config:
            raise InputError(
                "--deepspeed is a switch here: the program makes its DeepSpeed config itself",
                remedy="zero-sizer dryrun --how simulated -- LINE runs it; or give the config",
                where=said.source,
            )
        raise InputError(
            f"this file of {said.tool} names no DeepSpeed config",
            remedy="add deepspeed: ds.json to it; `zero-sizer choose` finds a config for it",
            where=said.source,
        )
    precision = said.workload.get("precision")
    values = dict(instead(precision.value if precision else None))
    if "optim" in said.workload:
        values.pop("optimizer", None)  # the tool brings its own
    return _job(said, flags, _stand_in(values), is_named=False)


def _require_known(said: Statements, key: str, what: str) -> None:
    """Stops where an argument is named by a variable that only a shell that runs knows.

    Args:
        said: of the file.
        key: how the argument's name begins.
        what: it means.

    Raises:
        InputError: with the argument and its line.
    """
    for found in said.findings:
        if found.code == VARIABLE_UNKNOWN and found.key.startswith(key):
            raise InputError(
                f"{found.message.partition(';')[0]}: which {what} is meant?",
                remedy="write it there, or export the variable's value in the script",
                where=f"{found.file}:{found.line}" if found.line else said.source,
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
    from zero_sizer.config import document
    from zero_sizer.job.readers import recognise

    said, flags = recognise.read(path), Flags()
    cluster = section(said.cluster, stated.CLUSTER, flags)
    workload = section(said.workload, stated.WORKLOAD, flags)
    is_stated = {"instance", "nodes", "gpus_per_node", "hostfile"} & cluster.keys()
    config = said.document or document.from_mapping({}, source=path)
    return config, assemble(cluster) if is_stated else None, workload_of(workload)


def model_of(flags: Flags) -> ModelSpec:
    """The model that the flags name, quantized and adapted as they say.

    Raises:
        InputError: anything wrong with a flag.
    """
    return _model(_model_reference(Statements(), flags), Statements(), flags)


def without_config(values: Mapping[str, Any], flags: Flags) -> Job:
    """The job that the flags describe when there is no CONFIG; ``values`` stands in for it.

    Raises:
        InputError: no model, or anything wrong with a flag.
    """
    return _job(Statements(), flags, _stand_in(values), is_named=False)


def _stand_in(values: Mapping[str, Any]) -> Document:
    from zero_sizer.config import document

    return document.from_mapping(values, source=NO_CONFIG)


def _job(said: Statements, flags: Flags, document: Document, *, is_named: bool) -> Job:
    on_what = section(said.cluster, stated.CLUSTER, flags)
    cluster = assemble(cluster_of(on_what, section(said.workload, stated.WORKLOAD, flags)))
    reference = _model_reference(said, flags)
    found = {**(said.on_cluster(cluster) if said.on_cluster else {}), **said.workload}
    workload = workload_of(section(found, stated.WORKLOAD, flags))
    return Job(
        document=document,
        cluster=cluster,
        workload=workload,
        model=_model(reference, said, flags),
        origins={
            "deepspeed": document.source if is_named else NONE_GIVEN,
            "model": reference.origin,
        },
        said=said,
        findings=tuple(_unsettled(said, flags)),
    )


def _unsettled(said: Statements, flags: Flags) -> Iterator[Finding]:
    """Findings of the file, but for what a flag answers."""
    for finding in said.findings:
        is_answered = flags.nodes is not None or flags.hostfile is not None
        if finding.code != NODES_UNKNOWN or not is_answered:
            yield finding


def section(
    said: Mapping[str, Stated], fields: tuple[stated.Field, ...], flags: Flags
) -> dict[str, Stated]:
    """The statements of flags and file for one section."""
    found = {field.name: said[field.name] for field in fields if field.name in said}
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


def cluster_of(found: dict[str, Stated], workload: Mapping[str, Stated]) -> dict[str, Stated]:
    """The cluster's statements; ranks that share each layer are so many GPUs where none are."""
    ranks = workload.get("tensor_parallel")
    if ranks is None or {"instance", "nodes", "gpus_per_node", "hostfile"} & found.keys():
        return found
    return {**found, "gpus_per_node": ranks}


def workload_of(found: Mapping[str, Stated]) -> Workload:
    """The workload that the stated fields mean.

    Raises:
        InputError: two of them contradict one another.
    """
    found = _one_amount(settled(found))
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


def _model_reference(said: Statements, flags: Flags) -> Stated:
    """What names the model."""
    if isinstance(flags.model, Mapping):
        from zero_sizer.job.readers.own import numbers

        return Stated(numbers(flags.model, "--model"), "--model")
    if flags.model is not None:
        return Stated(flags.model, "--model")
    if said.model is not None:
        return said.model
    _require_known(said, "model", "model")
    remedy = "add --model llama-3-8b, a config.json, module:factory or params=7e9,layers=32"
    if said.tool:
        what = f"no model: this file of {said.tool} names none"
    else:
        what = "no model: a DeepSpeed config does not name one"
        is_job = said.source.lower().endswith((".yaml", ".yml"))
        remedy = "add model: llama-3-8b, or --model" if is_job else remedy
    raise InputError(what, remedy=remedy, where=said.source)


def _model(reference: Stated, said: Statements, flags: Flags) -> ModelSpec:
    """The model with everything that is said of it."""
    loaded = quantized(_load_model(reference, flags), said, flags)
    _require_task(loaded, _task(said, flags))
    model = _adapted(loaded, said, flags)
    found = section(said.workload, (stated.FREEZE,), flags).get(stated.FREEZE.name)
    if found is None and said.frozen is not None:
        found = said.frozen(model)
    return known(_frozen(model, found))


def _load_model(reference: Stated, flags: Flags) -> ModelSpec:
    from zero_sizer import models

    may_run = reference.origin == "--model" or bool(flags.allow_code)
    try:
        return models.load(reference.value, allow_code=may_run)
    except InputError as error:
        if error.where not in ("", "--model"):
            raise
        raise InputError(error.message, remedy=error.remedy, where=reference.origin) from None


def quantized(spec: ModelSpec, said: Statements, flags: Flags) -> ModelSpec:
    """The model as a flag, the file or its own config.json says that its weights are stored."""
    own = spec.hf_config.get("quantization_config")
    stated_here = said.quantization
    if flags.quantization is not None:
        stated_here = Stated(flags.quantization, "--quantization")
    if stated_here is None and own is None:
        return spec
    from zero_sizer.models.changes import quantization as packing

    if stated_here is None:
        if not isinstance(own, Mapping):
            raise InputError("quantization_config is not a mapping", where=spec.origin)
        stored = packing.from_fields(own, f"{spec.origin}: quantization_config")
    elif isinstance(stated_here.value, Mapping):
        stored = packing.from_fields(stated_here.value, stated_here.origin)
    else:
        stored = packing.read(stated_here.value, stated_here.origin)
    return spec if stored is None else packing.with_quantization(spec, stored)


def _task(said: Statements, flags: Flags) -> Stated | None:
    return Stated(flags.task, "--task") if flags.task is not None else said.workload.get("task")


def _require_task(spec: ModelSpec, task: Stated | None) -> None:
    """Stops where weights of inference are to be trained.

    Raises:
        UnsupportedError: they are.
    """
    how = spec.quantization
    is_inference = task is not None and task.value == INFERENCE
    if how is not None and how.method != BITSANDBYTES and not is_inference:
        raise UnsupportedError(
            f"weights {how.describe()} are modelled for inference, not for training; "
            "bitsandbytes' are",
            remedy="add --task inference, or take nf4 or int8",
            where=how.origin,
        )


def _adapted(spec: ModelSpec, said: Statements, flags: Flags) -> ModelSpec:
    """The model under the adapter that a flag or the file names, if one does."""
    named = said.adapter
    if flags.adapter is not None:
        named = Stated(flags.adapter, "--adapter")
    if named is None:
        return spec
    from zero_sizer.models.changes import lora
    from zero_sizer.models.changes import lora_config as adapter

    if isinstance(named.value, Mapping):
        excluded = said.excluded(spec) if said.excluded and named is said.adapter else None
        fields = dict(named.value) | ({"exclude_modules": excluded.value} if excluded else {})
        found = adapter.from_fields(fields, named.origin)
        by = excluded.origin if excluded else ""
        return lora.with_adapter(spec, replace(found, excluded_by=by))
    return lora.with_adapter(spec, adapter.read(named.value, named.origin))


def _frozen(spec: ModelSpec, said: Stated | None) -> ModelSpec:
    """The model without what is stated as not trained."""
    if said is None:
        return spec
    from zero_sizer.models.changes import freeze, records

    return freeze.with_freeze(spec, records.Freeze(said.value, said.origin))
