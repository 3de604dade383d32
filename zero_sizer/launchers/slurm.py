"""``srun`` in front of a line."""

import re
from collections.abc import Mapping, Sequence

from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.words import number
from zero_sizer.parallel import ranks_of_each

NAME = "srun"
_SHORT = {"-N": "nodes", "-n": "ntasks", "-G": "gpus", "-c": "cpus_per_task"}
_GPUS = re.compile(r"gpu(?::\w+)?:(\d+)")
# Options of srun that take the next word; any other without "=" stands alone.
_VALUES = (
    *("nodes", "ntasks", "ntasks_per_node", "gpus", "gpus_per_node", "gpus_per_task", "gres"),
    *("cpus_per_task", "partition", "account", "time", "job_name", "nodelist", "exclude"),
    *("output", "error", "input", "mem", "cpu_bind", "mpi", "chdir", "jobid", "qos", "export"),
    *(
        "container_image",
        "container_mounts",
        "container_workdir",
        "kill_on_bad_exit",
        "reservation",
    ),
)
_LETTERS = "pAtJwxoeiDK"


def read(words: Sequence[str]) -> tuple[Launch, list[str]]:
    """(What srun says, the line that it starts).

    Raises:
        InputError: a number of nodes or tasks that is none.
    """
    options, rest = _options(words)
    nodes = number(options, "nodes", NAME)
    per_node = number(options, "ntasks_per_node", NAME)
    tasks = number(options, "ntasks", NAME)
    if per_node is None and tasks is not None:
        per_node = ranks_of_each(tasks, nodes or 1)
    if per_node is None:
        per_node = gpus_of(options)
    launch = Launch(command=(), launcher=NAME, nodes=nodes, gpus_per_node=per_node, slurm=True)
    return launch, rest


def options_of(words: Sequence[str]) -> dict[str, str]:
    """Options by name, of a line of ``#SBATCH``."""
    return _options(words)[0]


def gpus_of(options: Mapping[str, str]) -> int | None:
    """GPUs of each node by ``--gres`` or ``--gpus-per-node``; None where neither counts them."""
    found = _GPUS.search(options.get("gres", ""))
    text = found.group(1) if found else options.get("gpus_per_node", "").rpartition(":")[2]
    return int(text[:9]) if text.isdecimal() and int(text[:9]) > 0 else None


def _options(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word, equals, value = rest.pop(0).partition("=")
        if not word.startswith("--"):
            letter, attached = word[:2], word[2:]
            name = _SHORT.get(letter, letter)
            if attached or letter in _SHORT or letter[1:] in _LETTERS:
                options[name] = attached or (rest.pop(0) if rest else "")
            continue
        name = word[2:].replace("-", "_")
        if equals or name in _VALUES:
            options[name] = value if equals else (rest.pop(0) if rest else "")
    return options, rest
