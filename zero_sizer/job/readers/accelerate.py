"""YAML of ``accelerate config`` and ``accelerate launch --config_file``.

Follows accelerate 1.15 ``utils/dataclasses.py`` (``DeepSpeedPlugin.__post_init__``, which makes the
DeepSpeed config where the file names none) and ``utils/launch.py``.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Finding
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers import facts, paths
from zero_sizer.job.readers.facts import Fact, Tool
from zero_sizer.job.statements import Statements
from zero_sizer.parallel import ranks_of_each
from zero_sizer.util.spelling import shown

NAME = "accelerate"
_SECTION = "deepspeed_config"
_PRECISIONS = {"bf16": "bf16", "fp16": "fp16", "no": "fp32", "fp8": "bf16"}
_TOOL = Tool(
    name=NAME,
    version="1.15",
    facts=(
        Fact(
            field="precision", keys=("mixed_precision",), read=facts.word_of(_PRECISIONS)
        ),
    ),
    known=frozenset(
        {
            *("num_machines", "num_processes", "distributed_type", "compute_environment"),
            *("deepspeed_config", "machine_rank", "main_process_ip", "main_process_port"),
            *("main_training_function", "rdzv_backend", "same_network", "downcast_bf16", "debug"),
            *("fsdp_config", "dynamo_config", "enable_cpu_affinity", "use_cpu", "gpu_ids"),
        }
    ),
)  # fmt: skip
# key of deepspeed_config -> (key of DeepSpeed, what the plugin takes where it is left out)
_KEYS: Mapping[str, tuple[str, Any]] = {
    "gradient_accumulation_steps": ("gradient_accumulation_steps", "auto"),
    "gradient_clipping": ("gradient_clipping", "auto"),
    "zero_stage": ("zero_optimization.stage", 2),
    "offload_optimizer_device": ("zero_optimization.offload_optimizer.device", "none"),
    "offload_optimizer_nvme_path": ("zero_optimization.offload_optimizer.nvme_path", None),
    "offload_param_device": ("zero_optimization.offload_param.device", "none"),
    "offload_param_nvme_path": ("zero_optimization.offload_param.nvme_path", None),
    "zero3_save_16bit_model": (
        "zero_optimization.stage3_gather_16bit_weights_on_model_save",
        False,
    ),
}
_NVME = "_nvme_path"


def read(file: Document) -> Statements:
    """Reads an accelerate file.

    Raises:
        InputError: a value is wrong.
        UnsupportedError: another engine than DeepSpeed.
    """
    kind = str(file.values.get("distributed_type") or "").upper()
    section = file.values.get(_SECTION)
    if kind not in ("", "DEEPSPEED"):
        raise UnsupportedError(
            f"accelerate is told {shown(kind)}, not DeepSpeed",
            remedy="distributed_type: DEEPSPEED, with deepspeed_config",
            where=file.where("distributed_type"),
        )
    if section is not None and not isinstance(section, Mapping):
        raise InputError(f"{_SECTION} is not a mapping", where=file.where(_SECTION))
    document, notes = _config(file)
    workload = facts.workload(_TOOL, file)
    init = file.get(f"{_SECTION}.zero3_init_flag")
    if init is not None and document.get("zero_optimization.stage") == 3:
        where = file.where(f"{_SECTION}.zero3_init_flag")
        workload["zero_init"] = facts.typed("zero_init", _switch(init, where), where)
    return Statements(
        source=file.source,
        tool=NAME,
        document=document,
        cluster=_cluster(file),
        workload=workload,
        findings=(*facts.remarks(_TOOL, file), *notes),
    )


def with_options(said: Statements, file: Document, options: Mapping[str, Any]) -> Statements:
    """The statements with what the line says instead of the file."""
    section = {k: v for k, v in options.items() if k in _KEYS or k == "deepspeed_config_file"}
    section |= {k: v for k, v in options.items() if k == "zero3_init_flag"}
    outer = {k: v for k, v in options.items() if k in ("mixed_precision",)}
    if not section and not outer:
        return said
    merged = dict(file.values.get(_SECTION) or {}) | section
    lines = {k: n for k, n in file.lines.items() if k.rpartition(".")[2] not in options}
    values = {**file.values, **outer, _SECTION: merged}
    return replace(read(replace(file, values=values, lines=lines)), findings=said.findings)


def _switch(value: Any, where: str) -> bool:
    try:
        return facts.yes(value)
    except ValueError as error:
        raise InputError(f"zero3_init_flag: {error}", where=where) from None


def _config(file: Document) -> tuple[Document, list[Finding]]:
    """The config that the file names, or the one that accelerate makes of its fields."""
    key = f"{_SECTION}.deepspeed_config_file"
    named = file.get(key)
    if named is not None and named != "none":
        from zero_sizer.config import document

        if not isinstance(named, str) or not named.strip() or "\0" in named:
            raise InputError(f"{key}: {shown(named)} is not a path", where=file.where(key))
        path, notes = paths.found(file, key, named, NAME)
        return document.load(path), notes
    values: dict[str, Any] = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"}
    lines: dict[str, int] = {}
    for name, (path, usual) in _KEYS.items():
        value = file.get(f"{_SECTION}.{name}")
        if name.endswith(_NVME) and value in (None, "none"):
            is_used = file.get(f"{_SECTION}.{name.removesuffix(_NVME)}_device") == "nvme"
            value = "none" if is_used else None  # the plugin's own default, a folder like any other
        value = usual if value is None else value
        if value is None:
            continue
        *outer, last = path.split(".")
        node = values
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = value
        if line := file.line(f"{_SECTION}.{name}"):
            lines[path] = line
    return Document(source=file.source, values=values, lines=lines), []


def _cluster(file: Document) -> dict[str, Stated]:
    """Nodes, and the processes of each."""
    counts = {}
    for field, key in (("nodes", "num_machines"), ("gpus_per_node", "num_processes")):
        value = file.values.get(key)
        if value is not None:
            counts[field] = facts.typed(field, value, file.where(key))
    if "gpus_per_node" not in counts:
        return {}  # nodes alone say nothing
    ranks, nodes = counts["gpus_per_node"], counts.get("nodes")
    each = ranks_of_each(ranks.value, nodes.value if nodes else 1)
    if each is None:
        raise InputError(
            f"num_processes {ranks.value} is no multiple of num_machines", where=ranks.origin
        )
    return {**counts, "gpus_per_node": Stated(each, ranks.origin)}
