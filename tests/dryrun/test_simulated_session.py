"""``simulate``: a user's own loop, unchanged, as one rank of many; and nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.simulated_jobs import AUTO, HOST, TINY_LLAMA, config_of

from zero_sizer.dryrun.simulated.script import ScriptRequest, run_script
from zero_sizer.errors import InputError, UnsupportedError, WitnessError
from zero_sizer.simulator import device

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parents[1] / "data" / "scripts"
DRIVER = """
import json, os, runpy, sys
from zero_sizer.dryrun.simulated import simulate
from zero_sizer.simulator.simulation import Rank, simulated

def run(command, reply):
    with simulate(nodes=2, gpus_per_node=4, gpu="a100-80gb", steps=2) as sim:
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")
    import torch
    real = torch.empty(2)
    found = {
        "peak": sim.peak,
        "recording": sim.recording().to_json(),
        "after": [type(real).__name__, str(real.device), torch.cuda.is_available(),
                  torch.distributed.is_initialized()],
    }
    with open(reply, "w") as file:
        json.dump(found, file)

jobs = json.load(sys.stdin)
if len(jobs) == 1:
    sys.exit(run(*jobs[0]))
with simulated(Rank(world_size=8, local_world_size=4)):  # once, for every fork
    from deepspeed.runtime.zero import stage3
    from transformers import AutoModelForCausalLM, HfArgumentParser, LlamaForCausalLM, Trainer
for job in jobs:
    child = os.fork()
    if not child:
        run(*job)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{job} failed")
"""

PACKED = """
import deepspeed, torch

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.arange(64) // 32 + index

def collate(rows):
    starts = torch.cat(rows).diff(prepend=torch.tensor([-1])).nonzero()
    return torch.ones(len(starts), 64, 64)

model = torch.nn.Linear(64, 64)
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config={
    "train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}})
for batch in torch.utils.data.DataLoader(Rows(), batch_size=2, collate_fn=collate):
    assert batch.shape == (3, 64, 64), batch.shape
    out = engine(batch.to("cuda"))
    loss = out[batch.to("cuda") > 0].sum()
    engine.backward(loss)
    engine.step()
"""


def _simulate(folder, commands):
    """What each command's process found; name -> [script, argument, ...]."""
    jobs = {
        name: ([str(SCRIPTS / script), *map(str, arguments)], str(folder / f"{name}.reply"))
        for name, (script, *arguments) in commands.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(list(jobs.values())),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: json.loads(Path(reply).read_text()) for name, (_, reply) in jobs.items()}


def _written(path, config):
    path.write_text(json.dumps(config))
    return path


PLAIN = {
    "stage 2": {"stage": 2},
    "stage 2, optimizer on host": {"stage": 2, "offload_optimizer": HOST},
    "stage 3": {"stage": 3},
    "stage 3, both on host": {"stage": 3, "offload_optimizer": HOST, "offload_param": HOST},
}
AUTO_ADAMW = {
    **AUTO,
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
}
AUTO_3 = {"stage3_prefetch_bucket_size": "auto", "stage3_param_persistence_threshold": "auto"}
TRAINER = {
    f"trainer, stage {stage}, {where}": {"stage": stage, **more, **offload}
    for stage, more in ((2, {}), (3, AUTO_3))
    for where, offload in (("gpu", {}), ("host", {"offload_optimizer": HOST}))
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> what the loop found, as rank 0 of 8; and the folder of the trainers' output."""
    folder = tmp_path_factory.mktemp("loops")
    commands = {}
    for name, zero in PLAIN.items():
        config = config_of(zero, gradient_accumulation_steps=2)
        commands[name] = ["plain_loop.py", _written(folder / f"{name}.json", config)]
    for name, zero in TRAINER.items():
        config = {**AUTO_ADAMW, "zero_optimization": {"reduce_bucket_size": "auto", **zero}}
        options = {
            "output_dir": folder / "out",
            "deepspeed": _written(folder / f"{name}.json", config),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "report_to": "none",
        }
        flags = [text for option, value in options.items() for text in (f"--{option}", value)]
        commands[name] = ["trainer.py", *flags, "--bf16", "--gradient_checkpointing"]
    return {**_simulate(folder, commands), "folder": folder}


def _phases(recording):
    return [(p["name"], p["step"], p["micro_step"]) for p in recording["phases"]]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_loop_runs_two_steps_as_rank_0_of_8(found, name):
    recording = found[name]["recording"]
    one = ("forward", "backward", "step")
    assert _phases(recording) == [
        ("init", 0, 0),
        *((name, step, micro) for step in (0, 1) for micro in (0, 1) for name in one),
    ]
    assert recording["world_size"] == 8
    held = {row["category"]: row for row in recording["phases"][-1]["live"]}
    where = "host" if "offload_optimizer" in PLAIN[name] else "gpu"
    assert held["optimizer_states"]["device"] == where
    assert found[name]["peak"]["gpu"] > held["optimizer_states"]["num_bytes"]


@pytest.mark.parametrize("name", TRAINER)
def test_a_trainer_script_runs_with_its_auto_config(found, name):
    recording = found[name]["recording"]
    # accelerate calls the engine's step at the accumulation boundary only.
    one = [("forward", 0), ("backward", 0), ("forward", 1), ("backward", 1), ("step", 1)]
    expected = [(name, step, micro) for step in (0, 1) for name, micro in one]
    assert _phases(recording) == [("init", 0, 0), *expected]
    last = recording["phases"][-1]["live"]
    states = {row["device"] for row in last if row["category"] == "optimizer_states"}
    assert states == {"host" if "offload_optimizer" in TRAINER[name] else "gpu"}
    assert not (found["folder"] / "out" / "model.safetensors").exists()


def test_nothing_is_left_behind(tmp_path):
    config = _written(tmp_path / "ds.json", config_of({"stage": 1}))
    (alone,) = _simulate(tmp_path, {"alone": ["plain_loop.py", config]}).values()
    assert alone["after"] == ["Tensor", "cpu", False, False]


def test_weights_are_neither_loaded_nor_saved(tmp_path):
    # The folder holds no weights at all: shapes from config.json are enough.
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA))
    request = ScriptRequest(
        command=[str(SCRIPTS / "pretrained.py"), str(tmp_path)], nodes=2, gpus_per_node=8
    )
    recording = run_script(request)
    assert recording.world_size == 16
    assert recording.first.last("step").num_bytes("optimizer_states", "gpu") > 0
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_scripts_own_error_is_one_line(tmp_path):
    with pytest.raises(WitnessError, match=r"OSError|HFValidationError|ValueError") as caught:
        run_script(ScriptRequest(command=[str(SCRIPTS / "pretrained.py"), str(tmp_path / "no")]))
    assert "\n" not in caught.value.message


def test_a_script_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no script"):
        run_script(ScriptRequest(command=["no/such/script.py"]))


def test_an_accelerate_loop_runs_with_workers_evaluation_and_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [str(SCRIPTS / "accelerate_loop.py"), "--workers", "2"]
    recording = run_script(ScriptRequest(command=command, nodes=2, gpus_per_node=4, steps=3))
    # 32 rows on 8 ranks are 2 micro batches of 2: one optimizer step an epoch, then evaluation.
    names = [phase.name for phase in recording.first.phases]
    epoch = ["forward", "backward", "forward", "backward", "step"]
    assert names == ["init", *epoch, "evaluation", *epoch, "evaluation", *epoch]
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.safetensors"))


def test_a_loss_outside_of_the_model_and_cudas_own_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = config_of({"stage": 2}, train_micro_batch_size_per_gpu=2)
    (tmp_path / "ds.json").write_text(json.dumps(config))
    arguments = ["--deepspeed", "--deepspeed_config", "ds.json"]
    command = [str(SCRIPTS / "own_loss.py"), *arguments]
    recording = run_script(ScriptRequest(command=command, nodes=2, gpus_per_node=4, gpu="h100"))
    forward = recording.first.last("forward").device["gpu"]
    # The script casts 2 x 64 x 1000 logits to fp32 and takes their logarithm after the engine's
    # forward has returned.
    assert forward["max_allocated"] - forward["allocated"] >= 2 * 64 * 1000 * 4
    assert recording.first.last("init").num_bytes("parameters", "gpu") > 0


def test_what_depends_on_values_is_refused_in_one_line(tmp_path):
    script = tmp_path / "select.py"
    script.write_text(
        "import torch, deepspeed\nx = torch.rand(5, device='cuda')\nprint(torch.unique(x))\n"
    )
    with pytest.raises(UnsupportedError, match=r"aten\._unique.*depends on values"):
        run_script(ScriptRequest(command=[str(script)]))


def test_what_the_device_lacks_is_no_bare_attribute_error():
    module = device._BackendModule()
    assert not hasattr(module, "Stream")  # libraries ask first
    with pytest.raises(UnsupportedError, match=r"simgpu\.Stream: .* not simulated"):
        module.Stream()


def test_masks_keep_everything_and_batches_are_collated_with_their_values(tmp_path):
    script = tmp_path / "packed.py"
    script.write_text(PACKED)
    recording = run_script(ScriptRequest(command=[str(script)], nodes=2, gpus_per_node=4))
    gpu = recording.first.last("forward").device["gpu"]
    assert gpu["allocated"] >= 3 * 64 * 64 * 4  # 3 rows as the collator read them from values
    assert [note for note in recording.notes if "selection by a mask" in note]


def test_services_and_quantized_weights_are_out_of_reach(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA))
    script = tmp_path / "reach.py"
    script.write_text(
        "import socket\n"
        "from transformers import AutoModelForCausalLM\n"
        "try:\n"
        "    socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
        "except OSError as error:\n"
        "    assert 'no network' in str(error)\n"
        "try:\n"
        f"    AutoModelForCausalLM.from_pretrained({str(tmp_path)!r}).generate()\n"
        "except Exception as error:\n"
        "    assert 'sequences end depends on values' in str(error)\n"
        "from transformers import GPTQConfig\n"
        "AutoModelForCausalLM.from_pretrained(\n"
        f"    {str(tmp_path)!r}, quantization_config=GPTQConfig(bits=4)\n"
        ")\n"
    )
    with pytest.raises(UnsupportedError, match=r"quantized by .*gptq.* are not modelled"):
        run_script(ScriptRequest(command=[str(script)]))
