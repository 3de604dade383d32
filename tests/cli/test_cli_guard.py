"""guard launches what fits and refuses what does not, as a process in front of another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.answers import CONFIG

from zero_sizer import cli
from zero_sizer.errors import InputError
from zero_sizer.job.fields import Flags
from zero_sizer.questions.guard import read, sized

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, sys
print("LAUNCHED", os.getpid(), os.environ.get("FOO", ""), *sys.argv[1:], flush=True)
sys.exit(7)
"""
SMALL = ("--gpu", "l4", "--seq-len", "128")
TOLD = ("train.py", "--deepspeed", "ds.json", "--model_name_or_path")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("SLURM_NNODES", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    return tmp_path


def guard(*words, env=None):
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, "-m", "zero_sizer", "guard", *words]
    process = subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.communicate(timeout=300)
    return process, out, err


def test_what_fits_is_launched_in_its_place():
    process, out, _ = guard(*SMALL, "--", "FOO=bar", "python", *TOLD, "gpt2", "--", "-x y")
    assert process.returncode == 7
    lines = out.splitlines()
    assert lines[0].startswith("FITS   at least ")
    launched = f"LAUNCHED {process.pid} bar --deepspeed ds.json --model_name_or_path gpt2 -- -x y"
    assert lines[-1] == launched
    assert len(lines) < 6


def test_what_does_not_fit_is_refused_with_the_reason():
    process, out, err = guard(*SMALL, "--", "python", *TOLD, "llama-2-7b")
    assert process.returncode == 1
    assert out.startswith("DOES NOT FIT   each GPU is ")
    assert "LAUNCHED" not in out
    assert err == "zero-sizer guard: not launched (does not fit)\n"


def test_a_config_that_deepspeed_refuses_is_refused(folder):
    (folder / "ds.json").write_text(json.dumps({**CONFIG, "bf16": {"enable": True}}))
    process, out, _ = guard(*SMALL, "--allow-uncertain", "--", "python", *TOLD, "gpt2")
    assert process.returncode == 1
    assert "LAUNCHED" not in out


@pytest.mark.slow
def test_what_nobody_can_tell_is_launched_where_that_is_allowed():
    process, out, err = guard("--seq-len", "128", "--", "python", *TOLD, "gpt2")
    assert process.returncode == 3
    assert out.startswith("COULD NOT TELL")
    assert "--allow-uncertain" in err
    process, out, _ = guard("--allow-uncertain", "--", "python", *TOLD, "gpt2")
    assert process.returncode == 7
    process, out, _ = guard("--allow-uncertain", "--", "echo", "hi")
    assert (process.returncode, out.splitlines()[-1]) == (0, "hi")
    assert guard("--", "echo", "hi")[0].returncode == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--",), "no launcher line"),
        ((), "no launcher line"),
        (("--", "no_such_launcher", "x.py"), "no program 'no_such_launcher'"),
        (("--", "FOO=1"), "no program in it"),
        (("--model", "gpt2", "--", "python", "train.py"), "no DeepSpeed config"),
        (("--", "python", "train.py", "--deepspeed", "ds.json"), "no model"),
        (("--", "python", *TOLD, "nobody/none"), "--model_name_or_path (after --): unknown model"),
        (("--", "python", "gone.py"), "no script 'gone.py'"),
        (("--dry-run", "solo", "--", "python", "train.py"), "invalid choice"),
    ],
)
def test_bad_usage_launches_nothing(words, told):
    process, out, err = guard(*words)
    assert process.returncode == 2
    assert told in err
    assert "Traceback" not in err
    assert "LAUNCHED" not in out


def test_a_batch_script_of_slurm_goes_on_only_where_the_job_fits(folder):
    """``srun`` and what the batch system sets, as in an sbatch script."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nshift $(( $# - 6 ))\nexec "$@"\n')
    ours = f'#!/bin/bash\nexec {sys.executable} -m zero_sizer "$@"\n'
    (tools / "zero-sizer").write_text(ours)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (folder / "job.sbatch").write_text(
        "#!/bin/bash\n#SBATCH --nodes=2\nset -e\n"
        'zero-sizer guard --gpu "$GPU" --seq-len 128 -- \\\n'
        "  srun --kill-on-bad-exit=1 python train.py --deepspeed ds.json"
        " --model_name_or_path llama-2-7b\necho AFTER\n"
    )
    (folder / "train.py").write_text(SCRIPT.replace("sys.exit(7)", ""))
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    env |= {"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "8"}
    done = {
        gpu: subprocess.run(
            ["bash", "job.sbatch"],
            env={**env, "GPU": gpu},
            capture_output=True,
            text=True,
            check=False,
        )
        for gpu in ("h100-80gb", "t4")
    }
    assert done["h100-80gb"].returncode == 0, done["h100-80gb"].stderr
    assert "2 x 8 h100-80gb" in done["h100-80gb"].stdout
    assert "LAUNCHED" in done["h100-80gb"].stdout
    assert done["t4"].returncode == 1
    assert "AFTER" not in done["t4"].stdout


LINES = {
    "python train.py --deepspeed ds.json": {"gpus_per_node": 1},
    "torchrun --nproc-per-node 8 --nnodes 2 train.py": {"gpus_per_node": 8, "nodes": 2},
    "torchrun train.py": {"gpus_per_node": 1},
    "deepspeed --num_gpus 4 train.py --deepspeed_config=ds.json": {"gpus_per_node": 4},
    "python train.py --bf16 --per_device_train_batch_size=4 --deepspeed ds.json": {
        **{"gpus_per_node": 1, "precision": "bf16", "micro_batch": 4}
    },
    "python train.py --gradient-checkpointing True --max_length 512 --fp16 false": {
        **{"gpus_per_node": 1, "checkpointing": True, "seq_len": 512}
    },
    "python train.py --use_liger_kernel --dataloader_num_workers 2 --lr 1e-4": {
        **{"gpus_per_node": 1, "kernels": "liger", "num_workers": 2}
    },
}


@pytest.mark.parametrize("line", LINES)
def test_what_a_line_says_need_not_be_said_again(line):
    found = read(line.split(), Flags(model="gpt2"), None)
    said = {name: getattr(found.flags, name) for name in LINES[line]}
    assert said == LINES[line]
    assert set(found.said) == set(LINES[line])
    assert found.config == ("ds.json" if "ds.json" in line else None)


def test_flags_win_over_arguments_and_must_agree_with_ranks():
    line = ["torchrun", "--nproc-per-node", "8", "train.py", "--per_device_train_batch_size", "4"]
    assert read(line, Flags(micro_batch=2), "other.json").flags.micro_batch == 2
    assert read(line, Flags(), "other.json").config == "other.json"
    with pytest.raises(InputError, match="4, and the launcher line says 8"):
        read(line, Flags(gpus_per_node=4), None)
    assert read(["python", "train.py"], Flags(gpus_per_node=4), None).flags.gpus_per_node == 4


@pytest.mark.parametrize("line", ["deepspeed train.py", "torchrun --nproc_per_node=gpu train.py"])
def test_as_many_ranks_as_there_are_gpus_must_be_said(line):
    with pytest.raises(InputError, match="the line does not say how many"):
        read(line.split(), Flags(), None)
    assert read(line.split(), Flags(gpus_per_node=8), None).flags.gpus_per_node == 8


def test_a_job_file_says_the_ranks_that_the_line_leaves_open(folder):
    job = {"model": "gpt2", "deepspeed": "ds.json"}
    job["cluster"] = {"gpu": "h100-80gb", "gpus_per_node": 8}
    (folder / "job.yaml").write_text(json.dumps(job))
    for line, ranks in (
        ("python train.py", 8),
        ("deepspeed train.py", 8),
        ("torchrun --nproc-per-node 4 train.py", 4),  # what would be started counts
    ):
        found = sized(read(line.split(), Flags(seq_len=128), "job.yaml"))
        assert found.sizing.job.cluster.world_size == ranks


@pytest.mark.slow
@pytest.mark.parametrize(("width", "code", "said"), [("64", 0, "FITS"), ("60000", 1, "DOES NOT")])
def test_a_dry_run_decides_where_the_line_names_no_config(
    folder, capsys, monkeypatch, width, code, said
):
    """In this process, where simulated ranks are forks; becoming the line is tested above."""
    pytest.importorskip("deepspeed")
    monkeypatch.delenv("HF_HOME")  # forks were started without
    (folder / "train.py").write_text(TRAINS)
    launched = []
    monkeypatch.setattr(os, "execve", lambda _, words, __: launched.append(words))
    words = ("--dry-run", "simulated", "--gpu", "l4", "--gpus-per-node", "2")
    line = ("python", "train.py", width)
    assert (cli.main(["guard", *words, "--", *line]) or 0) == code
    assert capsys.readouterr().out.startswith(f"{said} ")
    assert launched == ([] if code else [list(line)])


TRAINS = """
import sys
import torch, deepspeed
width = int(sys.argv[1])
model = torch.nn.Linear(width, width)
config = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 1},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}},
}
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
for _ in range(2):
    loss = engine(torch.zeros(1, width, device=engine.device)).sum()
    engine.backward(loss)
    engine.step()
"""
