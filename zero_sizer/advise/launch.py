"""Launcher lines and files for a chosen plan; nothing is started.

``launchers`` reads such lines; here they are written, for the versions that it reads: DeepSpeed
0.19.8, torch 2.13, accelerate 1.15.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.hardware import hostfile
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.speed.training import Training
from zero_sizer.util.records import dataclass
from zero_sizer.util.terminal import one_line

_PORT = 29500  # torch's and accelerate's default
_EXAMPLE = 2  # hosts shown where there is no hostfile
_HOST = "HOST"


@dataclass(frozen=True, kw_only=True)
class Files:
    """Names in a launcher line.

    Attributes:
        script: the user's training script.
        config: the DeepSpeed config.
        arguments: a JSON of TrainingArguments, which a Trainer's script reads in place of options.
        hostfile: as the user gave it.
        launch: where the launch file itself goes, for what names it.
    """

    script: str = "train.py"
    config: str = "ds_config.json"
    arguments: str | None = None
    hostfile: str | None = None
    launch: str | None = None

    @property
    def command(self) -> list[str]:
        """The script and what it is told."""
        if self.arguments is not None:
            return [self.script, self.arguments]
        return [self.script, "--deepspeed", self.config]


def launch_text(
    kind: str, cluster: Cluster, files: Files, *, stage: int, run: Training | None = None
) -> str:
    """Text that starts a plan on its cluster, with the launcher ``kind``, one of ``KINDS``.

    Args:
        kind: the launcher.
        cluster: nodes and the GPUs of each.
        files: names to write.
        stage: of ZeRO: at 3, accelerate builds the model in parts.
        run: the training run, for a batch system's time limit.

    Raises:
        InputError: nodes with different numbers of GPUs, for a launcher that wants them equal.
    """
    if not cluster.has_equal_nodes and not (kind == "deepspeed" and files.hostfile):
        raise InputError(
            f"nodes of different numbers of GPUs ({cluster.layout}) are not for {kind}",
            remedy="--emit-launch deepspeed with --hostfile",
            where="--emit-launch",
        )
    return "\n".join(_WRITERS[kind](cluster, files, stage, run)) + "\n"


def _deepspeed(cluster: Cluster, files: Files, stage: int, run: Training | None) -> Iterator[str]:
    words = ["deepspeed"]
    if cluster.nodes > 1 or files.hostfile:
        words += ["--hostfile", files.hostfile or "hostfile"]
        if not files.hostfile:
            yield "# hostfile: one line a node, the first is rank 0"
            for index in range(min(cluster.nodes, _EXAMPLE)):
                yield f"#   node-{index} slots={cluster.gpus_per_node}"
        words += ["--num_nodes", str(cluster.nodes)]
    if cluster.has_equal_nodes:
        words += ["--num_gpus", str(cluster.gpus_per_node)]
    yield shlex.join([*words, *files.command])


def _torchrun(cluster: Cluster, files: Files, stage: int, run: Training | None) -> Iterator[str]:
    if cluster.nodes == 1:
        yield shlex.join(["torchrun", "--standalone", *_per_node(cluster), *files.command])
        return
    head = _head(files)
    yield f"# on every node; {head if head else _HOST} is the first of them, which all can reach"
    yield shlex.join(
        [
            *("torchrun", "--nnodes", str(cluster.nodes), *_per_node(cluster)),
            *("--rdzv-id", "1", "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", f"{head or _HOST}:{_PORT}", *files.command),
        ]
    )


def _accelerate(cluster: Cluster, files: Files, stage: int, run: Training | None) -> Iterator[str]:
    import yaml

    words = ["accelerate", "launch", "--config_file", files.launch or "accelerate.yaml"]
    command = files.command if files.arguments else [files.script]
    by_hand = cluster.nodes > 1 and not files.hostfile
    if by_hand:
        yield "# on every node, with its own number from 0 on as --machine_rank"
        words += ["--machine_rank", "0"]
    yield one_line(f"# {shlex.join([*words, *command])}")
    config: dict[str, Any] = {
        "deepspeed_config_file": files.config,
        "zero3_init_flag": stage == 3,
    }
    if cluster.nodes > 1:
        config["deepspeed_multinode_launcher"] = "standard" if by_hand else "pdsh"
        if files.hostfile:
            config["deepspeed_hostfile"] = files.hostfile
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": config,
        "num_machines": cluster.nodes,
        "num_processes": cluster.world_size,
        "machine_rank": 0,
        "main_training_function": "main",
        "use_cpu": False,
    }
    if cluster.nodes > 1:
        values |= {
            "main_process_ip": _head(files) or _HOST,
            "main_process_port": _PORT,
            "rdzv_backend": "static",
            "same_network": True,
        }
    yield yaml.safe_dump(values, sort_keys=False).rstrip()


def _slurm(cluster: Cluster, files: Files, stage: int, run: Training | None) -> Iterator[str]:
    yield "#!/bin/bash"
    yield "#SBATCH --job-name=train"
    yield f"#SBATCH --nodes={cluster.nodes}"
    yield "#SBATCH --ntasks-per-node=1"
    yield f"#SBATCH --gpus-per-node={cluster.gpus_per_node}"
    yield "#SBATCH --exclusive"
    yield "#SBATCH --mem=0"
    limit = _limit(run)
    if limit:
        yield f"#SBATCH --time={limit}"
    yield ""
    yield "set -euo pipefail"
    yield 'mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")'
    yield ""
    per_node = shlex.join(_per_node(cluster))
    yield f'srun torchrun --nnodes "$SLURM_NNODES" {per_node} \\'
    yield '    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d \\'
    yield f'    --rdzv-endpoint "${{hosts[0]}}:{_PORT}" \\'
    yield f"    {shlex.join(files.command)}"


def _per_node(cluster: Cluster) -> list[str]:
    return ["--nproc-per-node", str(cluster.gpus_per_node)]


def _head(files: Files) -> str | None:
    """The first host of the hostfile."""
    return next(iter(hostfile.read(files.hostfile))) if files.hostfile else None


def _limit(run: Training | None) -> str | None:
    """The slowest case in Slurm's words, ``DAYS-HOURS``; None where it is beyond a year."""
    if run is None or run.days.high > 366:
        return None
    days, hours = divmod(ceil(run.days.high * 24), 24)
    return f"{days}-{hours}"


_WRITERS: Mapping[str, Callable[[Cluster, Files, int, Training | None], Iterator[str]]] = {
    "deepspeed": _deepspeed,
    "torchrun": _torchrun,
    "accelerate": _accelerate,
    "slurm": _slurm,
}
KINDS = tuple(_WRITERS)
