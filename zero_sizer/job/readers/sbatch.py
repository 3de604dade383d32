"""``#SBATCH`` lines: nodes, GPUs and memory that a script asks for."""

import re
from collections.abc import Iterator, Mapping

from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers import facts
from zero_sizer.launchers import slurm
from zero_sizer.launchers.launch import Launch
from zero_sizer.util.spelling import shown

Directives = Mapping[str, tuple[str, int]]
"""Option by srun's name -> its value, and its line."""
_DIRECTIVE = re.compile(r"#SBATCH\s+(.*?)\s*(?:\s#.*)?")
_MEMORY = {"K": "KiB", "M": "MiB", "G": "GiB", "T": "TiB", "": "MiB"}  # of sbatch's --mem


def directives(text: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """Options of sbatch -> (value, line), by srun's names."""
    for number, line in enumerate(text.splitlines(), 1):
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            continue
        launch_words = match.group(1).split()
        for name, value in slurm.options_of(launch_words).items():
            yield name, (value, number)


def variables(directives: Directives) -> dict[str, str]:
    """Variables that sbatch hands to the script."""
    values = {name: value for name, (value, _) in directives.items()}
    nodes, gpus = values.get("nodes", "1"), slurm.gpus_of(values)
    found = {"SLURM_NNODES": nodes, "SLURM_JOB_NUM_NODES": nodes}
    if gpus is not None:
        found |= {"SLURM_GPUS_ON_NODE": str(gpus), "SLURM_GPUS_PER_NODE": str(gpus)}
    for name in ("ntasks_per_node", "ntasks", "cpus_per_task"):
        if name in values:
            found[f"SLURM_{name.upper()}"] = values[name]
    return found


def cluster(path: str, here: str, launch: Launch, directives: Directives) -> dict[str, Stated]:
    """Nodes, ranks and host memory, as the line says, else as sbatch is told.

    Args:
        path: the script.
        here: its line that starts the training.
        launch: what that line says.
        directives: of the script.
    """
    found: dict[str, Stated] = {}
    values = {name: value for name, (value, _) in directives.items()}

    def line_of(*names: str) -> str:
        lines = [directives[name][1] for name in names if name in directives]
        return f"{path}:{lines[0]}" if lines else path

    if launch.nodes is not None:
        found["nodes"] = facts.typed("nodes", launch.nodes, here)
    elif values.get("nodes", "").isdecimal():
        found["nodes"] = facts.typed("nodes", int(values["nodes"][:9]), line_of("nodes"))
    tasks = values.get("ntasks_per_node", "")
    gpus = slurm.gpus_of(values)
    if launch.gpus_per_node is not None:
        found["gpus_per_node"] = facts.typed("gpus_per_node", launch.gpus_per_node, here)
    elif launch.launcher == slurm.NAME and tasks.isdecimal():
        found["gpus_per_node"] = facts.typed(
            "gpus_per_node", int(tasks[:9]), line_of("ntasks_per_node")
        )
    elif gpus is not None:
        origin = line_of("gres", "gpus_per_node", "gpus")
        found["gpus_per_node"] = facts.typed("gpus_per_node", gpus, origin)
    found |= _memory(values.get("mem", ""), line_of("mem"))
    return found


def _memory(written: str, where: str) -> dict[str, Stated]:
    """Host memory of a node; 0 is all of it, however much that is."""
    match = re.fullmatch(r"(\d{1,12})([KMGT]?)B?", written, re.IGNORECASE)
    if match is None or int(match.group(1)) == 0:
        return {}
    size = f"{match.group(1)}{_MEMORY[match.group(2).upper()]}"
    try:
        return {"host_memory": facts.typed("host_memory", size, where)}
    except InputError:
        raise InputError(f"--mem={shown(written)} is no memory of a node", where=where) from None
