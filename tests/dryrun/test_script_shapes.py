"""Scripts in the shapes that people have, unchanged, behind the launchers they use."""

import json
from importlib.util import find_spec

import pytest
import yaml
from support import script_inputs
from support.script_runs import BESIDE, SCRIPTS, model_folder, run_scripts
from support.simulated_jobs import AUTO

pytestmark = pytest.mark.slow

for package in ("datasets", "trl", "evaluate"):  # not imported, which takes seconds a worker
    if find_spec(package) is None:
        pytest.skip(f"needs {package}", allow_module_level=True)

ZERO = {**AUTO, "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}}
ADAMW = {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}}
TRAINER = (
    *("--output_dir", "out", "--report_to", "none", "--bf16", "True", "--max_steps", "4"),
    *("--per_device_train_batch_size", "2", "--deepspeed", "ds.json"),
)
TRL = (*TRAINER[:-2], "--model_name_or_path", "model", "--max_length", "64")
ACCELERATE = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "DEEPSPEED",
    "mixed_precision": "bf16",
    "num_machines": 1,
    "num_processes": 8,
    "deepspeed_config": {
        "zero_stage": 2,
        "gradient_accumulation_steps": 1,
        "offload_optimizer_device": "none",
        "zero3_init_flag": False,
    },
}
FILE_CONFIG = {
    **ACCELERATE,
    "mixed_precision": None,
    "deepspeed_config": {"deepspeed_config_file": "full.json", "zero3_init_flag": True},
}
LINES = {
    "clm": (
        *("deepspeed", "--num_gpus", "8", SCRIPTS / "run_clm.py", "--model_name_or_path", "model"),
        *("--train_file", "texts.jsonl", "--validation_file", "texts.jsonl", "--do_train"),
        *("--config_overrides", "num_hidden_layers=2", *TRAINER),
        *("--eval_strategy", "steps", "--eval_steps", "1", "--save_steps", "1"),
    ),
    "glue": (
        *("torchrun", "--nproc_per_node", "8", SCRIPTS / "run_glue.py"),
        *("--model_name_or_path", "model", "--eval_strategy", "steps", "--eval_steps", "1"),
        *("--train_file", "labels.jsonl"),
        *TRAINER,
    ),
    "summarization": (
        *("torchrun", "--nnodes=2", "--nproc_per_node=8", SCRIPTS / "run_summarization.py"),
        *("--model_name_or_path", "t5", "--train_file", "summaries.jsonl"),
        *("--validation_file", "summaries.jsonl", "--source_prefix", "summarize: "),
        *("--predict_with_generate", "--eval_strategy", "steps", "--eval_steps", "1", *TRAINER),
    ),
    "speech": (
        *("torchrun", "--nproc_per_node", "8", SCRIPTS / "run_speech.py"),
        *("--model_name_or_path", "whisper", "--dataset_name", "speech"),
        *("--freeze_encoder", "True", "--generation_max_length", "16"),
        *("--predict_with_generate", "--eval_strategy", "steps", "--eval_steps", "1", *TRAINER),
    ),
    "image": (
        *("python", SCRIPTS / "image_classification.py", "--model_name_or_path", "vit"),
        *("--train_dir", "pictures", "--remove_unused_columns", "False"),
        *("--eval_strategy", "steps", "--eval_steps", "1", *TRAINER),
    ),
    "no_trainer, inline": (
        *("accelerate", "launch", "--config_file", "inline.yaml", SCRIPTS / "no_trainer.py"),
        *("--model_name_or_path", "model", "--train_file", "texts.jsonl"),
    ),
    "no_trainer, a file": (
        *("accelerate", "launch", "--config_file", "file.yaml", SCRIPTS / "no_trainer.py"),
        *("--model_name_or_path", "model", "--train_file", "texts.jsonl"),
    ),
    "sft": (
        *("accelerate", "launch", "--config_file", "inline.yaml", SCRIPTS / "trl_sft.py"),
        *("--model", "model", "--data", "texts.jsonl", "--max_length", "64", *TRAINER[:-2]),
    ),
    "dpo": (
        *("srun", "-N", "2", "--ntasks-per-node=8", "python", "-u", SCRIPTS / "trl_dpo.py"),
        *("--model", "model", "--data", "pairs.jsonl", "--max_length", "64", *TRAINER),
    ),
    "grpo": (
        *("accelerate", "launch", "--config_file", "inline.yaml", SCRIPTS / "trl_grpo.py"),
        *(
            "--model",
            "model",
            "--data",
            "prompts.jsonl",
            "--num_generations",
            "8",
            "--max_completion_length",
            "64",
        ),
        *TRAINER[:-2],
    ),
    # trl's own scripts, as they are installed
    "trl sft": (
        *("trl", "sft", "--accelerate_config", "zero3", "--dataset_name", "chats", *TRL),
        *("--use_peft", "--lora_target_modules", "all-linear"),
    ),
    "trl dpo": ("trl", "dpo", "--dataset_name", "pairs", *TRL, "--deepspeed", "ds.json"),
    "trl grpo": (
        *("trl", "grpo", "--accelerate_config", "zero2", "--dataset_name", "prompts"),
        *("--reward_funcs", "think_format_reward", "--num_generations", "8"),
        *("--max_completion_length", "16", *TRL[:-2]),
    ),
    "factory": (
        *("FORCE_TORCHRUN=1", "torchrun", "--nnodes", "1", "--nproc_per_node", "8"),
        *(SCRIPTS / "factory" / "launcher.py", "factory.yaml"),
    ),
    "factory, a module": ("python", "-m", "factory.launcher", "factory.yaml"),
    "chat": (
        *("torchrun", "--nproc_per_node=8", "--master_port=20001", SCRIPTS / "chat.py"),
        *("--model_name_or_path", "model", "--gradient_checkpointing", "True", *TRAINER[2:]),
        *("--output_dir", "chat"),
    ),
}
GENERATED = {"speech": 12, "summarization": 10, "grpo": 16, "trl grpo": 8}
FIELDS = {name: {"generate_tokens": tokens} for name, tokens in GENERATED.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> recording, or the reply of a run that failed."""
    folder = tmp_path_factory.mktemp("shapes")
    model_folder(folder / "model")
    script_inputs.write(folder)
    rows = {
        "texts.jsonl": {"text": "the cat runs " * 64},
        "pairs.jsonl": {"prompt": "what does", "chosen": "a cat runs", "rejected": "a dog sits"},
    }
    rows["prompts.jsonl"] = {"prompt": "what does a cat do"}
    rows["labels.jsonl"] = {"text": "the cat runs", "label": 1}
    for name, row in rows.items():
        (folder / name).write_text("\n".join([json.dumps(row)] * 64))
    (folder / "ds.json").write_text(json.dumps({**ZERO, "optimizer": ADAMW}))
    full = {**ZERO, "zero_optimization": {"stage": 3}, "bf16": {"enabled": True}}
    full.update(gradient_clipping=1.0, gradient_accumulation_steps=2)
    full.update(train_micro_batch_size_per_gpu="auto", train_batch_size="auto")
    (folder / "full.json").write_text(json.dumps(full))
    (folder / "inline.yaml").write_text(yaml.safe_dump(ACCELERATE))
    (folder / "file.yaml").write_text(yaml.safe_dump(FILE_CONFIG))
    settings = {
        "model_name_or_path": "model",
        "output_dir": "out",
        "report_to": "none",
        "bf16": True,
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "deepspeed": "ds.json",
    }
    (folder / "factory.yaml").write_text(yaml.safe_dump(settings))
    lines = {name: (line, FIELDS.get(name, {})) for name, line in LINES.items()}
    imports = ("datasets", "trl", "transformers.models.t5.modeling_t5", "peft")
    return run_scripts(folder, lines, imports=imports, beside=True)


def _if_installed(name):
    """The line's name, skipped where a package that only it needs could not be had."""
    is_there = name != "image" or (BESIDE / ".filled").exists()
    return pytest.param(name, marks=() if is_there else pytest.mark.skip("torchvision is missing"))


@pytest.mark.parametrize("name", [_if_installed(name) for name in LINES])
def test_a_script_trains_two_steps_as_one_of_its_ranks(found, name):
    recording = found[name]
    assert not isinstance(recording, dict), (recording["message"], recording["trace"][-3000:])
    phases = recording.first.phases
    steps = [phase for phase in phases if phase.name == "step"]
    assert {phase.step for phase in steps} == {0, 1}
    assert phases[0].name == "init"
    states = steps[-1].num_bytes("optimizer_states", "gpu")
    assert states >= 2 * steps[-1].num_bytes("master_weights", "gpu") > 0
    nodes = 2 if name in ("summarization", "dpo") else 1
    assert recording.world_size == 8 * nodes


@pytest.mark.parametrize("name", GENERATED)
def test_generation_is_within_its_budget_and_says_so(found, name):
    (note,) = [note for note in found[name].notes if "generate()" in note]
    assert f"{GENERATED[name]} new tokens" in note
