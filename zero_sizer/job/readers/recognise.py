"""Whose file a CONFIG is: by its name, its first bytes, and the keys that only one tool has."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.errors import UnsupportedError
from zero_sizer.job.statements import Statements
from zero_sizer.util.records import dataclass

_YAML = (".yaml", ".yml")
_SCRIPTS = (".sh", ".bash", ".sbatch", ".slurm", ".job")
_FILE = "a config"


@dataclass(frozen=True, kw_only=True)
class Recogniser:
    """One kind of file.

    Attributes:
        tool: whose.
        needs: keys, all of which are there.
        one_of: keys, one of which is there.
        module: its reader in this package, with a function; empty where it is refused.
        remedy: what to do where it is refused.
    """

    tool: str
    needs: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    module: str = ""
    remedy: str = ""

    def knows(self, values: Mapping[str, Any]) -> bool:
        """True if a file of these keys is the tool's."""
        is_all = all(key in values for key in self.needs)
        return is_all and (not self.one_of or any(key in values for key in self.one_of))


_OWN_CONFIG = "it makes its DeepSpeed config of --zero_stage and its like: write that as JSON"
_BY_HAND = "state the model, the lengths and the DeepSpeed config in a job YAML"
_ARGUMENTS = (
    *("output_dir", "per_device_train_batch_size", "num_train_epochs", "save_strategy"),
    *("learning_rate", "lr_scheduler_type", "logging_steps", "gradient_checkpointing", "do_train"),
    "activation_checkpointing",
    *("overwrite_output_dir", "report_to", "save_steps", "eval_strategy", "warmup_ratio"),
)
TABLE = (
    Recogniser(
        tool="verl",
        one_of=("actor_rollout_ref", "actor_rollout_ref.model.path"),
        remedy=f"verl trains with FSDP or Megatron, not DeepSpeed; {_BY_HAND}",
    ),
    Recogniser(
        tool="NeMo",
        one_of=("exp_manager", "nemo_version", "megatron_amp_O2"),
        remedy=f"NeMo trains with Megatron; {_BY_HAND}",
    ),
    Recogniser(
        tool="NeMo",
        needs=("trainer", "model"),
        one_of=("restore_from_path", "cluster_type", "run", "stages"),
        remedy=f"NeMo trains with Megatron; {_BY_HAND}",
    ),
    Recogniser(
        tool="Megatron-LM",
        one_of=(
            *("tensor_model_parallel_size", "tensor-model-parallel-size", "language_model"),
            *("pipeline_model_parallel_size", "pipeline-model-parallel-size"),
        ),
        remedy=f"Megatron-LM shards layers itself; {_BY_HAND}",
    ),
    Recogniser(
        tool="GPT-NeoX",
        one_of=("pipe-parallel-size", "pipe_parallel_size", "model-parallel-size"),
        remedy=f"take its DeepSpeed keys to a DeepSpeed JSON; {_BY_HAND}",
    ),
    Recogniser(
        tool="torchtune",
        needs=("checkpointer", "tokenizer"),
        remedy=f"torchtune trains with FSDP, not DeepSpeed; {_BY_HAND}",
    ),
    Recogniser(
        tool="LLM Foundry",
        one_of=("device_train_microbatch_size", "global_train_batch_size"),
        remedy=f"LLM Foundry trains with FSDP, not DeepSpeed; {_BY_HAND}",
    ),
    Recogniser(
        tool="OpenRLHF",
        one_of=("micro_train_batch_size", "micro_rollout_batch_size"),
        remedy=f"{_OWN_CONFIG}; {_BY_HAND}",
    ),
    Recogniser(
        tool="DeepSpeed-Chat",
        needs=("zero_stage",),
        one_of=("data_split", "only_optimize_lora", "actor_zero_stage", "lora_dim"),
        remedy=f"{_OWN_CONFIG}; {_BY_HAND}",
    ),
    Recogniser(
        tool="accelerate",
        one_of=("distributed_type", "compute_environment", "deepspeed_config"),
        module="accelerate.read",
    ),
    Recogniser(tool="axolotl", needs=("base_model",), module="axolotl.read"),
    Recogniser(
        tool="LLaMA-Factory",
        needs=("model_name_or_path",),
        one_of=(
            *("finetuning_type", "cutoff_len", "template", "dataset_dir", "lora_rank"),
            *("disable_gradient_checkpointing", "flash_attn", "quantization_bit"),
        ),
        module="llama_factory.read",
    ),
    Recogniser(
        tool="LLaMA-Factory v1",
        needs=("model",),
        one_of=("dist_config", "model_class", "kernel_config"),
        remedy=f"dist_config.config_file is its DeepSpeed config; {_BY_HAND}",
    ),
    Recogniser(
        tool="ms-swift",
        needs=("model",),
        one_of=("tuner_type", "train_type", "torch_dtype", "lora_rank", "attn_impl", "rlhf_type"),
        module="swift.read",
    ),
    Recogniser(
        tool="trl",
        needs=("model_name_or_path",),
        one_of=(
            *("use_peft", "lora_r", "max_length", "dataset_text_field", "packing"),
            *("dataset_train_split", "assistant_only_loss", "completion_only_loss"),
        ),
        module="trainer.read_trl",
    ),
    Recogniser(tool="TrainingArguments", one_of=_ARGUMENTS, module="trainer.read_arguments"),
)
_OURS = ("cluster", "workload", "quantization")


def read(config: str | Mapping[str, Any]) -> Statements:
    """Reads a CONFIG, whoever's it is.

    Raises:
        InputError: unreadable, or anything wrong in it.
        UnsupportedError: the file of a tool that is not read.
    """
    from zero_sizer.job.readers import own

    if not isinstance(config, str):
        return _mapping(config)
    path = config
    suffix = Path(path).suffix.lower()
    if suffix in _YAML:
        from zero_sizer.job import yaml_lines

        file = yaml_lines.load(path)
        found = None if any(key in file.values for key in _OURS) else recognised(file.values)
        return read_by(found, file) if found is not None else own.read(file)
    if suffix in _SCRIPTS or _is_script(path):
        from zero_sizer.job.readers import shell

        return shell.read(path, read_arguments)
    from zero_sizer.config import document

    file = document.load(path)
    found = None if _is_deepspeed(file) else recognised(file.values)
    if found is not None:
        return read_by(found, file)
    return Statements(source=path, document=file)


def _mapping(config: Mapping[str, Any]) -> Statements:
    """A DeepSpeed config, or what a job YAML holds."""
    from zero_sizer.config.document import from_mapping
    from zero_sizer.job.readers import own

    file = from_mapping(config)
    return own.read(file) if "deepspeed" in config else Statements(document=file)


def document(path: str) -> Document:
    """A YAML or JSON file that a line names.

    Raises:
        InputError: unreadable.
    """
    if Path(path).suffix.lower() in _YAML:
        from zero_sizer.job import yaml_lines

        return yaml_lines.load(path)
    from zero_sizer.config import document

    return document.load(path)


def recognised(values: Mapping[str, Any]) -> Recogniser | None:
    """Whose file has these keys; None where nobody's is known."""
    return next((row for row in TABLE if row.knows(values)), None)


def read_by(row: Recogniser, file: Document) -> Statements:
    """Reads a file as its tool's.

    Raises:
        UnsupportedError: it has none.
    """
    if not row.module:
        raise UnsupportedError(
            f"a file of {row.tool}, which is not read", remedy=row.remedy, where=file.source
        )
    return _reader(row.module)(file)


def read_arguments(file: Document) -> Statements | None:
    """Reads a script's arguments; None where they are nobody's."""
    row = recognised(file.values)
    return None if row is None else read_by(row, file)


def reader_of(tool: str) -> Callable[[Document], Statements]:
    """The reader of a tool that a command names."""
    return _reader(next(row.module for row in TABLE if row.tool == tool and row.module))


def _reader(name: str) -> Callable[[Document], Statements]:
    from importlib import import_module

    module, _, function = name.partition(".")
    found: Callable[[Document], Statements] = getattr(
        import_module(f"zero_sizer.job.readers.{module}"), function
    )
    return found


def _is_deepspeed(file: Document) -> bool:
    """A key that only DeepSpeed has; TrainingArguments name a config, and hold none."""
    return any(
        key in file.values
        for key in ("zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu")
    )


def _is_script(path: str) -> bool:
    """A file without a telling name that begins as a shell's script does."""
    if Path(path).suffix.lower() in (".json", ".hjson"):
        return False
    from zero_sizer.errors import InputError
    from zero_sizer.util.files import read_part

    try:
        start, _ = read_part(path, 0, 2, _FILE)
    except InputError:
        return False  # the reader of configs says what is wrong
    return start == b"#!"
