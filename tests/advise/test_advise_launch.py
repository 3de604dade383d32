"""What starts a plan is what the launchers themselves take, and says what the plan says."""

import json
import shlex
import subprocess

import pytest
import yaml

from zero_sizer import cli, launchers
from zero_sizer.advise.launch import KINDS, Files, launch_text
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated, assemble

ASKED = ["choose", "--model", "llama-3.2-1b", "--gpu", "a100-40gb", "--gpus-per-node", "4"]
ASKED += ["--host-memory", "256GiB", "--seq-len", "512", "--checkpointing", "--num-workers", "2"]


def cluster(nodes=1, gpus=4, hostfile=None):
    stated = {"nodes": nodes, "gpus_per_node": gpus, "hostfile": hostfile}
    return assemble({k: Stated(v, f"--{k}") for k, v in stated.items() if v is not None})


@pytest.fixture
def hosts(tmp_path):
    path = tmp_path / "my hosts"
    path.write_text("node-a slots=4\nnode-b slots=4\n")
    return str(path)


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")


def line_of(text):
    """The words of the one line that is no comment."""
    (line,) = [line for line in text.splitlines() if line and not line.startswith("#")]
    return shlex.split(line)


@pytest.mark.parametrize("how", ["deepspeed", "torchrun"])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("with_hosts", [False, True])
def test_our_own_reader_reads_what_is_written(script, hosts, how, nodes, with_hosts):
    files = Files(hostfile=hosts if with_hosts else None, arguments="args.json")
    words = line_of(launch_text(how, cluster(nodes), files, stage=3))
    if how == "deepspeed" and nodes == 2 and not with_hosts:
        words[words.index("hostfile")] = hosts
    read = launchers.read(words)
    assert (read.nodes or 1, read.gpus_per_node) == (nodes, 4)
    assert read.command[0] == "train.py"
    assert "args.json" in read.command


@pytest.mark.slow
def test_deepspeed_and_torchrun_take_the_lines(hosts):
    """Their own parsers: every word in front of the script is an option of theirs."""
    from deepspeed.launcher.runner import fetch_hostfile, parse_args
    from torch.distributed.run import get_args_parser

    for nodes in (1, 2):
        for files in (Files(), Files(hostfile=hosts)):
            words = line_of(launch_text("deepspeed", cluster(nodes), files, stage=3))
            found = parse_args(words[1:])
            assert found.num_gpus == 4
            assert found.user_script == "train.py"
            assert found.user_args == ["--deepspeed", "ds_config.json"]
            assert found.num_nodes == (nodes if nodes > 1 or files.hostfile else -1)
            if files.hostfile:
                assert fetch_hostfile(found.hostfile) == {"node-a": 4, "node-b": 4}
            words = line_of(launch_text("torchrun", cluster(nodes), files, stage=3))
            ours = get_args_parser().parse_args(words[1:])
            assert ours.nproc_per_node == "4"
            assert ours.nnodes == str(nodes) if nodes > 1 else ours.standalone
            assert ours.training_script == "train.py"
            assert ours.training_script_args == ["--deepspeed", "ds_config.json"]
            if files.hostfile and nodes > 1:
                assert ours.rdzv_endpoint.startswith("node-a:")


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("script_name", ["train.py", "my train's.py"])
def test_bash_takes_the_batch_script(tmp_path, nodes, script_name):
    path = tmp_path / "train.sbatch"
    path.write_text(launch_text("slurm", cluster(nodes), Files(script=script_name), stage=1))
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # with srun and scontrol in bash, the line that it would run
    fake = 'srun() { printf "%s\\n" "$@"; }; scontrol() { printf "%s\\n" a b c; }\n'
    setup = f"SLURM_NNODES={nodes} SLURM_JOB_ID=7 SLURM_JOB_NODELIST='x[1-3]'\n"
    ran = subprocess.run(
        ["bash", "-c", fake + setup + path.read_text()], capture_output=True, text=True, check=True
    )
    words = ran.stdout.splitlines()
    assert words[:5] == ["torchrun", "--nnodes", str(nodes), "--nproc-per-node", "4"]
    assert "a:29500" in words
    assert words[-3:] == [script_name, "--deepspeed", "ds_config.json"]
    assert f"#SBATCH --nodes={nodes}" in path.read_text()


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("with_hosts", [False, True])
@pytest.mark.slow
def test_accelerate_reads_the_yaml(tmp_path, script, hosts, nodes, with_hosts):
    """Its loader refuses keys that it does not know."""
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "accelerate.yaml"
    files = Files(hostfile=hosts if with_hosts else None, launch=str(path))
    text = launch_text("accelerate", cluster(nodes), files, stage=3)
    path.write_text(text)
    found = load_config_from_file(str(path))
    assert (found.num_machines, found.num_processes) == (nodes, 4 * nodes)
    assert found.deepspeed_config["deepspeed_config_file"] == "ds_config.json"
    assert found.deepspeed_config["zero3_init_flag"] is True
    comments = [line[2:] for line in text.splitlines() if line.startswith("# accelerate")]
    read = launchers.read(shlex.split(comments[0]))
    assert (read.nodes, read.gpus_per_node) == (nodes, 4)
    assert read.environment["ACCELERATE_USE_DEEPSPEED"] == "true"


def test_unequal_nodes_are_for_deepspeed_only(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("a slots=4\nb slots=2\n")
    uneven = cluster(None, None, str(hosts))
    words = line_of(launch_text("deepspeed", uneven, Files(hostfile=str(hosts)), stage=1))
    assert "--num_gpus" not in words
    for how in KINDS[1:]:
        with pytest.raises(InputError, match="different numbers of GPUs"):
            launch_text(how, uneven, Files(hostfile=str(hosts)), stage=1)


@pytest.fixture(scope="module")
def emitted(tmp_path_factory):
    """Everything at once for one plan: the files by name, and the JSON answer."""
    from contextlib import redirect_stdout
    from io import StringIO

    folder = tmp_path_factory.mktemp("emitted")
    names = {flag: str(folder / name) for flag, name in FILES.items()}
    out = StringIO()
    launch = ["--emit-launch", f"slurm={folder / 'run.sbatch'}", "--emit-launch", "torchrun"]
    flags = [word for pair in names.items() for word in pair]
    with redirect_stdout(out):
        goal = ["--tokens", "1B"]
        code = cli.main([*ASKED, *flags, *launch, *goal, "--format", "json"])
    assert code == 0
    return folder, json.loads(out.getvalue())


FILES = {"--emit": "ds.json", "--emit-args": "args.json", "--emit-job": "job.yaml"}


def test_files_and_answer_say_the_same(emitted):
    folder, answer = emitted
    arguments = json.loads((folder / "args.json").read_text())
    assert arguments == answer["training_arguments"]
    assert arguments["deepspeed"] == str(folder / "ds.json")
    plan, config = answer["chosen"], json.loads((folder / "ds.json").read_text())
    assert arguments["per_device_train_batch_size"] == plan["micro_batch"]
    assert arguments["gradient_accumulation_steps"] == plan["gradient_accumulation_steps"]
    assert arguments["gradient_checkpointing"] is True
    assert arguments["learning_rate"] == config["optimizer"]["params"]["lr"]
    assert arguments["dataloader_num_workers"] == 2
    slurm, torchrun = answer["launch"]
    assert (folder / "run.sbatch").read_text() == slurm["text"]
    assert "--time=" in slurm["text"]
    assert torchrun["file"] is None
    assert str(folder / "args.json") in torchrun["text"]
    assert yaml.safe_load((folder / "job.yaml").read_text())["workload"]["tokens"] == 10**9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")  # read by all releases
def test_the_trainer_takes_the_arguments(emitted):
    """No mismatch with the emitted config; one that differs is one."""
    from transformers import HfArgumentParser, TrainingArguments

    folder, _ = emitted
    values = json.loads((folder / "args.json").read_text())
    known = {"use_cpu": True, "output_dir": str(folder / "out")}
    (arguments,) = HfArgumentParser(TrainingArguments).parse_dict({**values, **known})
    config = arguments.hf_deepspeed_config
    assert config.mismatches == []
    assert arguments.bf16
    (other,) = HfArgumentParser(TrainingArguments).parse_dict(
        {**values, **known, "learning_rate": 3e-4, "max_grad_norm": 0.5}
    )
    assert len(other.hf_deepspeed_config.mismatches) == 2


@pytest.mark.parametrize("word", ["slrum", "slurm=", "", "torchrun,slurm"])
def test_a_launcher_that_is_none_is_one_line(capsys, word):
    assert cli.main([*ASKED, "--emit-launch", word]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "--emit-launch" in printed.err


@pytest.mark.parametrize("flag", ["--tokens", "--budget", "--emit-launch", "--emit-args"])
def test_nothing_of_a_plan_goes_with_the_largest(capsys, flag):
    assert cli.main([*ASKED, "--largest", "micro-batch", flag, "slurm"]) == 2
    assert flag in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_fits_starts_nothing(tmp_path, capsys):
    none = ["choose", "--model", "llama-3-8b", "--gpu", "t4", "--host-memory", "8GiB"]
    none += ["--seq-len", "512", "--emit-launch", "torchrun", "--tokens", "1B"]
    none += ["--micro-batch", "1", "--checkpointing"]
    files = ["--emit-args", str(tmp_path / "a.json")]
    assert cli.main([*none, *files]) == 1
    printed = capsys.readouterr()
    assert "a.json not written" in printed.err
    for word in ("torchrun", "USD", "days", "$"):
        assert word not in printed.out
    assert not list(tmp_path.iterdir())
