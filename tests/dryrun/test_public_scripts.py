"""Scripts with the calls of public ones: DeepSpeedExamples' and diffusers', at their sizes."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from support import cifar_files, diffusion_inputs, script_for_real
from support.diffusion_inputs import TEXT_NUMEL, UNET_NUMEL, VAE_NUMEL
from support.script_calls import calls
from support.script_runs import BESIDE, SCRIPTS, run_scripts

PUBLIC = json.loads((Path(__file__).parents[1] / "data" / "script_calls.json").read_text())
FILES = {"text_to_image": ("text_to_image", "text_to_image_arguments", "text_to_image_data")}
_MOE = (
    *("--log-interval", "100", "--deepspeed", "--moe", "--ep-world-size", "2", "--top-k", "1"),
    *("--noisy-gate-policy", "RSample", "--moe-param-group"),
)
_RESIDUAL = (*_MOE, "--num-experts", "2", "4", "--mlp-type", "residual")
_ZERO2 = ("--stage", "2", "--dtype", "bf16")
_DIFFUSION = (
    *("--train_data_dir", "captioned", "--output_dir", "out", "--max_train_steps", "100"),
    *("--gradient_checkpointing", "--learning_rate", "1e-05", "--max_grad_norm", "1"),
    *("--lr_scheduler", "constant", "--lr_warmup_steps", "0", "--use_ema", "--snr_gamma", "5.0"),
)
_STABLE_DIFFUSION = (
    *("--pretrained_model_name_or_path", "sd", *_DIFFUSION, "--resolution", "512"),
    *("--center_crop", "--random_flip", "--train_batch_size", "4", "--mixed_precision", "bf16"),
)
_TINY = (
    *("--pretrained_model_name_or_path", "tiny", *_DIFFUSION, "--resolution", "64"),
    *("--train_batch_size", "2", "--checkpointing_steps", "1", "--checkpoints_total_limit", "1"),
)
PIPELINE_CONFIG = {
    "train_batch_size": 256,
    "train_micro_batch_size_per_gpu": 8,
    "optimizer": {"type": "Adam", "params": {"lr": 0.001, "betas": [0.9, 0.999], "eps": 1e-8}},
    "steps_per_print": 10,
    "wall_clock_breakdown": False,
}


def _accelerate(stage, processes=8):
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "mixed_precision": "bf16",
        "num_machines": 1,
        "num_processes": processes,
        "deepspeed_config": {
            "zero_stage": stage,
            "gradient_accumulation_steps": 1,
            "zero3_init_flag": False,
        },
    }


def _pipeline(*words):
    config = "--deepspeed_config=ds_config.json"
    return ("deepspeed", "--num_gpus=8", SCRIPTS / "pipeline_net.py", config, *words)


def _diffusion(file, *words):
    return ("accelerate", "launch", "--config_file", file, SCRIPTS / "text_to_image.py", *words)


XFORMERS = "diffusion, xformers"
LINES = {
    # run_ds_moe.sh and run_ds_prmoe.sh
    "moe": ("deepspeed", "--num_gpus=2", SCRIPTS / "moe.py", *_MOE, "--num-experts", "2"),
    "moe, residual": ("deepspeed", "--num_gpus=2", SCRIPTS / "moe.py", *_RESIDUAL, *_ZERO2),
    "plain": ("deepspeed", "--num_gpus=8", SCRIPTS / "moe.py", "--deepspeed"),
    # run.sh
    "pipeline": _pipeline("-p", "2", "--steps=200"),
    "pipeline, last stage": (_pipeline("-p", "2", "--steps=200"), {"rank": 7}),
    "pipeline, layers made late": _pipeline("-p", "2", "--late"),
    "no pipeline": _pipeline("-p", "0", "--deepspeed"),
    # README.md of examples/text_to_image
    "diffusion": _diffusion("zero2.yaml", *_STABLE_DIFFUSION),
    "diffusion, tiny": _diffusion("one.yaml", *_TINY),
    "diffusion, stage 3": _diffusion("zero3.yaml", *_TINY),
    "diffusion, other flags": _diffusion(
        *("zero2.yaml", *_TINY, "--noise_offset", "0.1", "--offload_ema"),
        *("--input_perturbation", "0.1", "--use_8bit_adam", "--allow_tf32", "--scale_lr"),
        *("--validation_prompts", "a cat", "--validation_epochs", "1", "--seed", "3"),
        *("--max_train_samples", "32"),
    ),
    "diffusion, dream": _diffusion("zero2.yaml", *_TINY, "--dream_training"),
    XFORMERS: _diffusion("zero2.yaml", *_TINY, "--enable_xformers_memory_efficient_attention"),
}
FAIL = {  # for real too
    "diffusion, stage 3": "Sequence length must be less than max_position_embeddings",
    # A float goes into a U-Net in bf16; a GPU's convolution refuses it, a CPU's linear layer.
    "diffusion, dream": "Input type .float. and bias type|must have the same dtype, but got Float",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_script_makes_the_calls_of_the_public_one(name):
    files = [SCRIPTS / f"{file}.py" for file in FILES.get(name, (name,))]
    made = {}
    for path in files:
        for call, keywords in calls(path).items():
            made.setdefault(call, set()).update(keywords)
    for call, keywords in PUBLIC[name]["calls"].items():
        assert call in made
        assert set(keywords.split()) <= made[call], call
    text = "".join(path.read_text() for path in files)
    hub = ("push_to_hub", "hub_token", "hub_model_id", "dataset_name", "dataset_config_name")
    flags = {flag.lstrip("-") for flag in PUBLIC[name]["flags"].split()} - set(hub)
    assert {flag for flag in flags if flag not in text} <= {"tracker_project_name"}


needs_torchvision = pytest.mark.skipif(
    not (BESIDE / ".filled").exists(), reason="torchvision is missing"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("diffusers")
    pytest.importorskip("datasets")
    place = tmp_path_factory.mktemp("public")
    cifar_files.write(place)
    diffusion_inputs.write(place)
    (place / "ds_config.json").write_text(json.dumps(PIPELINE_CONFIG))
    files = {"zero2": _accelerate(2), "zero3": _accelerate(3), "one": _accelerate(2, 1)}
    for name, values in files.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return place


@pytest.fixture(scope="module")
def found(folder):
    """Name -> recording, or the reply of a run that failed."""
    imports = ("diffusers", "datasets", "support.cifar_ready")
    lines = {
        name: line if isinstance(line[-1], dict) else (line, {}) for name, line in LINES.items()
    }
    return run_scripts(folder, lines, imports=imports, beside=True)


def _held(recording, category):
    return recording.first.last("step").num_bytes(category, "gpu")


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("name", [name for name in LINES if name not in (*FAIL, XFORMERS)])
def test_a_script_trains_two_steps_as_one_of_its_ranks(found, name):
    recording = found[name]
    assert not isinstance(recording, dict), (recording["message"], recording["trace"][-3000:])
    assert {phase.step for phase in recording.first.phases if phase.name == "step"} == {0, 1}
    assert recording.first.phases[0].name == "init"


@pytest.mark.slow
@needs_torchvision
def test_stable_diffusion_holds_what_its_published_sizes_say(found):
    """The U-Net's states over 8 ranks, its average in fp32 whole, the frozen parts in bf16."""
    recording = found["diffusion"]
    partition = -(-UNET_NUMEL // 16) * 2  # padded to two elements a rank
    assert _held(recording, "master_weights") == 4 * partition
    assert _held(recording, "optimizer_states") == 2 * 4 * partition
    assert _held(recording, "parameters") == 2 * 8 * partition
    beside = 4 * UNET_NUMEL + 2 * (VAE_NUMEL + TEXT_NUMEL)
    beside += 4 * (4 * 3 * 512 * 512)  # the first batch's pixels
    beside += 2 * 4 * 77 * 768 + 3 * 2 * (4 * 4 * 64 * 64)  # its text; latents, noise and both
    init = recording.first.phases[0]
    assert init.num_bytes("other", "gpu") == pytest.approx(beside, rel=1e-4)


@pytest.mark.slow
@needs_torchvision
def test_stages_of_alexnet_hold_their_own_layers(found):
    # torchvision's 61,100,840 parameters; ten classes for a thousand.
    numel = 61_100_840 - 990 * (4096 + 1)
    for first in ("pipeline", "pipeline, layers made late"):
        held = [_held(found[name], "parameters") for name in (first, "pipeline, last stage")]
        assert sum(held) == 4 * numel
        assert held[0] != held[1]
        states = [
            _held(found[name], "optimizer_states") for name in (first, "pipeline, last stage")
        ]
        assert sum(states) == 8 * numel
    assert _held(found["no pipeline"], "parameters") == 4 * numel


@pytest.mark.slow
@needs_torchvision
def test_phases_of_a_pipeline_are_its_schedules(found):
    phases = found["pipeline"].first.phases[1:]
    for _, step in itertools.groupby(phases, lambda phase: phase.step):
        names = [phase.name for phase in step]
        assert [names.count(name) for name in ("forward", "backward", "step")] == [8, 8, 1]
    assert [phase.name for phase in phases].count("step") == 2


def _environment(stage):
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage),
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_MIXED_PRECISION": "bf16",
    }


_FEW = ("--deepspeed_config=few.json", "-p", "2", "--backend", "gloo")  # a micro step, not eight
_REAL = {  # ranks, script, its arguments, stage
    "moe, residual": (2, "moe.py", (*_RESIDUAL, *_ZERO2), 2),
    "pipeline": (2, "pipeline_net.py", _FEW, 2),
    "diffusion, tiny": (1, "text_to_image.py", _TINY, 2),
    "diffusion, stage 3": (1, "text_to_image.py", _TINY, 3),
    "diffusion, dream": (1, "text_to_image.py", (*_TINY, "--dream_training"), 2),
}


@pytest.fixture(scope="module")
def real(folder):
    """Name -> what each real rank on the CPU held, or what one printed that failed."""
    config = {**PIPELINE_CONFIG, "train_batch_size": 4, "train_micro_batch_size_per_gpu": 2}
    (folder / "few.json").write_text(json.dumps(config))
    runs = {
        name: script_for_real.Run(
            script=SCRIPTS / script, arguments=words, ranks=ranks, environment=_environment(stage)
        )
        for name, (ranks, script, words, stage) in _REAL.items()
    }
    imports = ("deepspeed", "diffusers", "datasets", "support.cifar_ready")
    return script_for_real.held(folder, runs, imports=imports)


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("name", [name for name in _REAL if name not in FAIL])
def test_a_real_run_on_cpus_holds_the_bytes_that_are_simulated(found, real, name):
    assert not isinstance(real[name], str), real[name][-9000:]
    recording, rank = found[name], real[name][0]
    assert _held(recording, "optimizer_states") == rank["optimizer_states"]
    assert _held(recording, "parameters") == rank["parameters"]
    if name != "pipeline":  # there fp32 parameters are stepped themselves
        assert _held(recording, "master_weights") == rank["stepped"]


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("name", FAIL)
def test_a_script_that_fails_for_real_fails_in_the_same_words(found, real, name):
    """accelerate 1.15 has transformers cut the text encoder at stage 3, and nothing gathers it.

    diffusers 0.42 computes DREAM in fp32, for a U-Net that DeepSpeed has cast.
    """
    assert re.search(FAIL[name], found[name]["message"])
    assert isinstance(real[name], str)
    assert re.search(FAIL[name], real[name])


@pytest.mark.slow
@needs_torchvision
def test_a_package_that_is_missing_is_the_scripts_own_message(found):
    assert "xformers is not installed" in found[XFORMERS]["message"]
