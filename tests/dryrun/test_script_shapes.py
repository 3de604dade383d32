"""Scripts in the shapes that people have, unchanged, behind the launchers they use."""

import itertools
import json
import struct

import pytest
import yaml
from support import script_inputs
from support.script_runs import BESIDE, SCRIPTS, model_folder, run_scripts
from support.simulated_jobs import AUTO

pytestmark = pytest.mark.slow

pytest.importorskip("datasets")
pytest.importorskip("trl")
pytest.importorskip("diffusers")
pytest.importorskip("evaluate")

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
DIFFUSION = {
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 8,
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [32, 64],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "latent_channels": 4,
        "norm_num_groups": 8,
    },
    "text_encoder": {
        "model_type": "clip_text_model",
        "architectures": ["CLIPTextModel"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 1024,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}


def _headers_only(path, shapes):
    """A safetensors file without its weights: reading its header is all that is needed."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def _diffusion_folder(folder):
    import diffusers
    import torch

    for name, config in DIFFUSION.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
        if "_class_name" in config:
            cls = getattr(diffusers, config["_class_name"])
            with torch.device("meta"):
                shapes = {key: t.shape for key, t in cls.from_config(config).state_dict().items()}
            _headers_only(folder / name / "diffusion_pytorch_model.safetensors", shapes)
    diffusers.DDPMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")
    return folder


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
    "moe": ("deepspeed", "--num_gpus=8", SCRIPTS / "moe.py", "--deepspeed"),
    "pipeline": ("deepspeed", "--num_gpus", "8", SCRIPTS / "pipeline_net.py", "-p", "2"),
    "diffusion": (
        *("accelerate", "launch", "--config_file", "inline.yaml", SCRIPTS / "text_to_image.py"),
        *("--pretrained_model_name_or_path", "diffusion"),
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
PIPELINE = {"pipeline, last stage": (LINES["pipeline"], {"rank": 7})}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> recording, or the reply of a run that failed."""
    folder = tmp_path_factory.mktemp("shapes")
    model_folder(folder / "model")
    _diffusion_folder(folder / "diffusion")
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
    return run_scripts(folder, {**lines, **PIPELINE}, imports=imports, beside=True)


def _if_installed(name):
    """The line's name, skipped where a package that only it needs could not be had."""
    is_there = name != "image" or (BESIDE / ".filled").exists()
    return pytest.param(name, marks=() if is_there else pytest.mark.skip("torchvision is missing"))


@pytest.mark.parametrize("name", [_if_installed(name) for name in (*LINES, *PIPELINE)])
def test_a_script_trains_two_steps_as_one_of_its_ranks(found, name):
    recording = found[name]
    assert not isinstance(recording, dict), (recording["message"], recording["trace"][-3000:])
    phases = recording.first.phases
    steps = [phase for phase in phases if phase.name == "step"]
    assert {phase.step for phase in steps} == {0, 1}
    assert phases[0].name == "init"
    states = steps[-1].num_bytes("optimizer_states", "gpu")
    assert states >= 2 * steps[-1].num_bytes("master_weights", "gpu") > 0 or name.startswith("pipe")
    assert states > 0
    nodes = 2 if name in ("summarization", "dpo") else 1
    assert recording.world_size == 8 * nodes


@pytest.mark.parametrize("name", GENERATED)
def test_generation_is_within_its_budget_and_says_so(found, name):
    (note,) = [note for note in found[name].notes if "generate()" in note]
    assert f"{GENERATED[name]} new tokens" in note


def test_later_stages_of_a_pipeline_hold_their_own_layers(found):
    first, last = (found[name].first.last("step") for name in ("pipeline", "pipeline, last stage"))
    held = [phase.num_bytes("parameters", "gpu") for phase in (first, last)]
    # partition_method parameters: 1,049,856 parameters in one layer, 448 + 2,570 in the others.
    assert sum(held) == 4 * (448 + 4096 * 256 + 256 + 2570)
    assert held[0] != held[1]


def test_phases_of_a_pipeline_are_its_schedules(found):
    names = [phase.name for phase in found["pipeline"].first.phases[1:]]
    for _, step in itertools.groupby(found["pipeline"].first.phases[1:], lambda p: p.step):
        counts = [phase.name for phase in step]
        assert [counts.count(n) for n in ("forward", "backward", "step")] == [4, 4, 1]
    assert names.count("step") == 2
