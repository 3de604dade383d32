"""``accelerate launch`` and its YAML (accelerate/commands/launch.py, utils/launch.py, 1.15)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.words import number, take
from zero_sizer.parallel import ranks_of_each
from zero_sizer.util.files import read_bytes

NAME = "accelerate launch"
_MAX_BYTES = 2**18
_VALUES = (
    *("config_file", "mixed_precision", "num_processes", "num_machines", "gpu_ids", "role"),
    *("num_cpu_threads_per_process", "dynamo_backend", "dynamo_mode", "machine_rank"),
    *("main_process_ip", "main_process_port", "tee", "log_dir", "rdzv_backend", "rdzv_conf"),
    *("max_restarts", "monitor_interval", "vm", "env", "main_training_function"),
    *("deepspeed_config_file", "zero_stage", "offload_optimizer_device", "offload_param_device"),
    *("offload_optimizer_nvme_path", "offload_param_nvme_path", "gradient_accumulation_steps"),
    *("gradient_clipping", "zero3_init_flag", "zero3_save_16bit_model", "deepspeed_hostfile"),
    *("deepspeed_exclusion_filter", "deepspeed_inclusion_filter", "mpirun_hostfile"),
    *("deepspeed_multinode_launcher", "deepspeed_moe_layer_cls_names"),
)
_PREFIXES = ("fsdp_", "megatron_lm_", "fp8_", "parallelism_config_", "aws_")
_FLAGS = (
    *("quiet", "cpu", "multi_gpu", "tpu", "enable_cpu_affinity", "dynamo_use_fullgraph"),
    *("dynamo_use_dynamic", "dynamo_use_regional_compilation", "use_deepspeed", "use_fsdp"),
    *("use_parallelism_config", "use_megatron_lm", "same_network", "module", "no_python"),
    *("tpu_cluster", "no_tpu_cluster", "tpu_use_sudo", "downcast_bf16", "debug"),
    "fp8_use_autocast_during_eval",
)
_VARIABLES = {  # option or key of deepspeed_config -> variable (prepare_deepspeed_cmd_env)
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "gradient_clipping": "ACCELERATE_GRADIENT_CLIPPING",
    "offload_optimizer_device": "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
    "zero3_init_flag": "ACCELERATE_DEEPSPEED_ZERO3_INIT",
    "zero3_save_16bit_model": "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL",
}
_AS_WRITTEN = {
    "deepspeed_config_file": "ACCELERATE_DEEPSPEED_CONFIG_FILE",
    "deepspeed_moe_layer_cls_names": "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES",
}


def read(words: Sequence[str]) -> Launch:
    """Reads what follows ``accelerate launch``.

    Raises:
        InputError: an option that it does not have, or a YAML that cannot be read.
        UnsupportedError: a line for another engine.
    """
    options, rest = take(
        words,
        launcher=NAME,
        values=_VALUES,
        flags=_FLAGS,
        prefixes=_PREFIXES,
        short={"m": "module"},
    )
    return launch(options, rest)


def launch(options: Mapping[str, str], rest: Sequence[str]) -> Launch:
    """Reads options of ``accelerate launch`` that are already taken apart."""
    path = options.get("config_file") or _default_file()
    given = _yaml(path) if path is not None else {}
    nested = given.get("deepspeed_config") or {}
    settings: dict[str, Any] = {**given, **nested, **options}
    uses_deepspeed = _uses_deepspeed(given, options, path)
    counts: dict[str, str] = {
        name: str(settings[name]) for name in ("num_processes", "num_machines") if name in settings
    }
    machines = number(counts, "num_machines", NAME)
    processes = number(counts, "num_processes", NAME)
    each = None if processes is None else ranks_of_each(processes, machines or 1)
    if processes is not None and each is None:
        raise InputError(
            f"num_processes {processes} is no multiple of num_machines {machines}",
            where=path or "after --",
        )
    fields = [*nested, *(["mixed_precision"] if _is_from_file(given, options) else [])]
    environment = {
        "ACCELERATE_MIXED_PRECISION": str(settings.get("mixed_precision") or "no").lower()
    }
    if uses_deepspeed:
        environment["ACCELERATE_USE_DEEPSPEED"] = "true"
        environment["ACCELERATE_CONFIG_DS_FIELDS"] = ",".join(fields).lower()
        for name, variable in (_VARIABLES | _AS_WRITTEN).items():
            if settings.get(name) is not None:
                text = str(settings[name])
                environment[variable] = text if name in _AS_WRITTEN else text.lower()
    return Launch(
        command=tuple(rest),
        module="module" in options,
        launcher=NAME,
        nodes=machines,
        gpus_per_node=each,
        environment=environment,
        options={**options, **({"config_file": path} if path is not None else {})},
    )


def _is_from_file(given: Mapping[str, Any], options: Mapping[str, str]) -> bool:
    return "mixed_precision" not in options and given.get("mixed_precision") is not None


def _uses_deepspeed(given: Mapping[str, Any], options: Mapping[str, str], path: str | None) -> bool:
    """Whether accelerate itself brings DeepSpeed; a Trainer may do so without it.

    Raises:
        UnsupportedError: another engine is asked for.
    """
    kind = str(given.get("distributed_type") or "").upper()
    for other in ("FSDP", "MEGATRON_LM", "TPU", "XLA"):
        if f"use_{other}".lower() in options or (kind == other and not _overrides(options)):
            raise UnsupportedError(
                f"accelerate is told {other}, not DeepSpeed",
                remedy="--use_deepspeed, or distributed_type: DEEPSPEED in its YAML",
                where=path or "after --",
            )
    return "use_deepspeed" in options or (kind == "DEEPSPEED" and not _overrides(options))


def _overrides(options: Mapping[str, str]) -> bool:
    return any(name in options for name in ("multi_gpu", "cpu", "tpu", "use_deepspeed"))


def _default_file() -> str | None:
    """What ``accelerate config`` wrote, which is read where no file is named."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    for name in ("default_config.yaml", "default_config.yml"):
        path = Path(home) / "accelerate" / name
        if path.is_file():
            return str(path)
    return None


def _yaml(path: str) -> dict[str, Any]:
    import yaml  # slow to import, and most lines need none

    data = read_bytes(path, _MAX_BYTES, "a YAML file of accelerate")
    try:
        values = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"not a YAML file of accelerate: {reason}", where=path) from None
    if not isinstance(values, dict) or not isinstance(values.get("deepspeed_config") or {}, dict):
        raise InputError("not a YAML file of accelerate: no mapping", where=path)
    return values
