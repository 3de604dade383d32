"""Launcher lines are read: script, ranks and environment; nothing is started."""

import json

import pytest
import yaml

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.launchers import read


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with scripts, away from this user's own accelerate config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("train.py", "hosts.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "torchrun").write_text("#!/usr/bin/python3\n")
    (tmp_path / "tool").write_text("#!/usr/bin/env python3\n")
    (tmp_path / "job.sh").write_text("#!/bin/bash\ndeepspeed train.py\n")
    (tmp_path / "hostfile").write_text("a slots=8\nb slots=8\nc slots=8\n")
    (tmp_path / "mixed").write_text("a slots=8\nb slots=4\n")
    return tmp_path


LINES = {
    "train.py --lr 1": (None, None, "train.py --lr 1"),
    "python train.py": (None, None, "train.py"),
    "python3.11 -u -X dev train.py --nodes 3": (None, None, "train.py --nodes 3"),
    "/usr/bin/python -m pkg.train --x": (None, None, "-m pkg.train --x"),
    "./tool --x": (None, None, "./tool --x"),
    # DeepSpeed's launcher hands every rank --local_rank (deepspeed/launcher/launch.py:234).
    "deepspeed train.py": (None, None, "train.py --local_rank=0"),
    "deepspeed --num_gpus 8 train.py --a": (None, 8, "train.py --local_rank=0 --a"),
    "deepspeed --num_gpus=8 --num_nodes=2 --no_local_rank train.py": (2, 8, "train.py"),
    "deepspeed --module --num_gpus 4 pkg.train": (None, 4, "-m pkg.train --local_rank=0"),
    "deepspeed --hostfile hostfile train.py": (3, 8, "train.py --local_rank=0"),
    "deepspeed -H hostfile --num_nodes 2 --num_gpus 4 train.py": (
        *(2, 4, "train.py --local_rank=0"),
    ),
    "deepspeed --hostfile hostfile --include a:0,1@b:0,1 train.py": (
        *(2, 2, "train.py --local_rank=0"),
    ),
    "deepspeed --hostfile hostfile --exclude c train.py": (2, 8, "train.py --local_rank=0"),
    "deepspeed --include localhost:0,1,2 --master_port 29501 train.py": (
        *(1, 3, "train.py --local_rank=0"),
    ),
    "python -m deepspeed.launcher.runner --num_gpus 2 train.py": (
        *(None, 2, "train.py --local_rank=0"),
    ),
    "torchrun --nproc_per_node 8 --nnodes 2 train.py": (2, 8, "train.py"),
    "torchrun --nproc-per-node=8 --nnodes=1:4 --rdzv-id x train.py": (4, 8, "train.py"),
    "torchrun --standalone --nproc_per_node gpu -m pkg.train a": (1, None, "-m pkg.train a"),
    "./torchrun --nproc_per_node 2 train.py": (None, 2, "train.py"),
    "python -m torch.distributed.run --nproc_per_node 4 train.py": (None, 4, "train.py"),
    "python -m torch.distributed.launch --nproc_per_node 4 train.py": (
        *(None, 4, "train.py --local-rank=0"),
    ),
    "accelerate launch --num_processes 16 --num_machines 2 train.py": (2, 8, "train.py"),
    "accelerate launch -m pkg.train --b": (None, None, "-m pkg.train --b"),
    "srun -N 4 --ntasks-per-node=8 --gres gpu:a100:8 python train.py": (4, 8, "train.py"),
    "srun --nodes=2 -n16 -l --mpi=none python -u train.py": (2, 8, "train.py"),
    "srun -N2 --ntasks-per-node 1 torchrun --nnodes 2 --nproc_per_node 8 train.py": (
        *(2, 8, "train.py"),
    ),
    "mpirun -np 8 python train.py": (None, 8, "train.py"),
    "mpirun -np 16 -H a:8,b:8 -bind-to none -map-by slot -x NCCL_DEBUG=INFO -x PATH "
    "-mca pml ob1 --mca btl ^openib --allow-run-as-root python train.py --lr 1": (
        *(2, 8, "train.py --lr 1"),
    ),
    "mpirun --hostfile hostfile python train.py": (3, 8, "train.py"),
    "mpirun -n 24 --map-by ppr:8:node --oversubscribe python -u train.py": (3, 8, "train.py"),
    "mpirun -N 4 --hostfile hostfile python train.py": (3, 4, "train.py"),
    "mpiexec -n 8 -ppn 4 -f hostfile -genv OMP_NUM_THREADS 8 python train.py": (2, 4, "train.py"),
    "mpiexec.hydra -hosts a,b -perhost 8 -np 16 python -m pkg.train": (2, 8, "-m pkg.train"),
    "orterun -np 2 -H a,b torchrun --nnodes 2 --nproc_per_node 8 train.py": (2, 8, "train.py"),
    "llamafactory-cli train sft.yaml": (None, None, "-m llamafactory.launcher sft.yaml"),
    "FORCE_TORCHRUN=1 NNODES=2 NPROC_PER_NODE=8 llamafactory-cli train sft.yaml": (
        *(2, 8, "-m llamafactory.launcher sft.yaml"),
    ),
    "CUDA_VISIBLE_DEVICES=0,1,4 deepspeed train.py": (None, 3, "train.py --local_rank=0"),
    "CUDA_VISIBLE_DEVICES=0,1 python train.py": (None, None, "train.py"),
    "trl dpo --beta 1": (None, None, "-m trl.scripts.dpo --beta 1"),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_says_script_and_ranks(line):
    launch = read(line.split())
    nodes, gpus, script = LINES[line]
    assert (launch.nodes, launch.gpus_per_node) == (nodes, gpus)
    assert " ".join((["-m"] if launch.module else []) + list(launch.command)) == script


def test_variables_in_front_and_those_of_slurm():
    line = "WANDB_MODE=off env A=b=c srun -N 2 --ntasks-per-node 4 python train.py"
    launch = read(line.split())
    assert dict(launch.environment) == {"WANDB_MODE": "off", "A": "b=c"}
    found = launch.variables(rank=5, nodes=2, gpus_per_node=4)
    names = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "A")
    assert [found[name] for name in names] == ["5", "1", "1", "8", "b=c"]


def test_variables_of_mpi():
    launch = read(
        [
            "mpirun",
            "-np",
            "8",
            "-H",
            "a:4,b:4",
            "-x",
            "HF_HOME=/d",
            "-x",
            "PATH",
            "python",
            "train.py",
        ]
    )
    assert dict(launch.environment) == {"HF_HOME": "/d"}
    found = launch.variables(rank=5, nodes=2, gpus_per_node=4)
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    assert [found[f"OMPI_COMM_WORLD_{name}"] for name in names] == ["5", "8", "1", "4"]
    assert (found["PMI_RANK"], found["HF_HOME"]) == ("5", "/d")


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("deepspeed --nom_gpus 8 train.py", InputError, "no option --nom_gpus .*--num_gpus"),
        ("accelerate launch --num_process 8 train.py", InputError, "no option --num_process .*"),
        ("deepspeed --num_gpus $GPUS train.py", InputError, "not a whole number.*variable"),
        ("deepspeed --num_gpus", InputError, "no value"),
        ("deepspeed --num_gpus 8", InputError, "no script after deepspeed"),
        ("deepspeed --hostfile mixed train.py", InputError, "different numbers of GPUs: a 8, b 4"),
        ("deepspeed --hostfile none train.py", InputError, "none"),
        ("deepspeed --include far train.py", InputError, "far: which GPUs"),
        ("deepspeed --include far --hostfile hostfile train.py", InputError, "no host 'far'"),
        ("deepspeed --no_python ls", InputError, "no_python"),
        ("deepspeed --num_gpus 2 missing.py", InputError, "no script 'missing.py'"),
        ("torchrun --nproc_per_node 8 ls", UnsupportedError, "'ls' is no launcher"),
        ("mpirun -np $N python train.py", InputError, "not a whole number.*variable"),
        ("mpirun --hostfile mixed python train.py", InputError, "different numbers of slots: a 8"),
        ("mpirun -np 8 ./solver", InputError, "no script './solver'"),
        ("horovodrun -np 8 python train.py", UnsupportedError, "'horovodrun' is no launcher"),
        ("ray submit train.py", UnsupportedError, "'ray' is no launcher that is known"),
        ("./job.sh", UnsupportedError, "the line in it"),
        ("python -c pass", InputError, "write it to a file"),
        ("python", InputError, "no script after python"),
        ("accelerate launch --use_fsdp train.py", UnsupportedError, "FSDP, not DeepSpeed"),
        ("accelerate launch --config_file no.yaml train.py", InputError, "no.yaml: cannot be read"),
        ("accelerate launch --num_processes 3 --num_machines 2 train.py", InputError, "multiple"),
        ("llamafactory-cli export x.yaml", UnsupportedError, "does not train"),
    ],
)
def test_what_cannot_be_read_is_one_line(line, kind, says):
    with pytest.raises(kind, match=says) as caught:
        read(line.split())
    assert "\n" not in str(caught.value)


INLINE = {
    "distributed_type": "DEEPSPEED",
    "mixed_precision": "bf16",
    "num_machines": 2,
    "num_processes": 16,
    "deepspeed_config": {
        "zero_stage": 3,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 1.0,
        "offload_optimizer_device": "cpu",
        "offload_param_device": "none",
        "zero3_init_flag": True,
    },
}
FROM_FILE = {
    "distributed_type": "DEEPSPEED",
    "num_processes": 8,
    "num_machines": 1,
    "deepspeed_config": {"deepspeed_config_file": "Zero3.json", "zero3_init_flag": True},
}


def _reference(words):
    """Environment that accelerate's own code makes of the same line."""
    launch = pytest.importorskip("accelerate.commands.launch")
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    args = launch.launch_command_parser().parse_args(words)
    args, defaults, from_config = launch._validate_launch_command(args)
    fields = list(defaults.deepspeed_config.keys())
    args.deepspeed_fields_from_accelerate_config = ",".join(
        [*fields, *(["mixed_precision"] if from_config else [])]
    )
    _, environment = prepare_deepspeed_cmd_env(args)
    return {name: value for name, value in environment.items() if name.startswith("ACCELERATE_")}


@pytest.mark.slow
@pytest.mark.parametrize("config", [INLINE, FROM_FILE], ids=["inline", "a file"])
@pytest.mark.parametrize("more", ["", "--gradient_clipping 0.5 --mixed_precision fp16"])
def test_accelerates_variables_are_its_own(folder, monkeypatch, config, more):
    monkeypatch.setenv("ACCELERATE_LOG_LEVEL", "")
    monkeypatch.delenv("ACCELERATE_LOG_LEVEL")
    (folder / "a.yaml").write_text(
        yaml.safe_dump({**config, "compute_environment": "LOCAL_MACHINE"})
    )
    words = f"--config_file a.yaml {more} train.py".split()
    launch = read(["accelerate", "launch", *words])
    assert dict(launch.environment) == _reference(words)
    ranks = (launch.nodes, launch.gpus_per_node)
    assert ranks == (config["num_machines"], config["num_processes"] // config["num_machines"])


def test_accelerates_default_file_is_read_and_another_type_leaves_deepspeed_to_the_script(folder):
    (folder / "home" / "accelerate").mkdir(parents=True)
    path = folder / "home" / "accelerate" / "default_config.yaml"
    path.write_text(json.dumps(INLINE))
    assert read(["accelerate", "launch", "train.py"]).gpus_per_node == 8
    path.write_text(json.dumps({"distributed_type": "MULTI_GPU", "num_processes": 4}))
    launch = read(["accelerate", "launch", "train.py"])
    assert (launch.gpus_per_node, "ACCELERATE_USE_DEEPSPEED" in launch.environment) == (4, False)
