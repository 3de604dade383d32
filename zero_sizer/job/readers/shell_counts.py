"""Counts and files of a launcher line that only the shell that runs it knows."""

from collections.abc import Sequence
from itertools import pairwise

from zero_sizer.errors import InputError
from zero_sizer.job.readers.shell_words import UNKNOWN
from zero_sizer.util.spelling import shown

PASSED = ("NNODES", "NPROC_PER_NODE", "CUDA_VISIBLE_DEVICES")  # counted by launchers
_COUNTS = (
    *("nnodes", "nproc_per_node", "node_rank", "num_gpus", "num_nodes", "num_processes"),
    *("num_machines", "machine_rank", "nodes", "ntasks", "ntasks_per_node", "gpus_per_node"),
)
OF_NODES = ("nnodes", "num_nodes", "num_machines", "nodes", "NNODES")
_FILES = ("--config_file", "--hostfile", "--deepspeed_config_file")


def require_known_file(words: Sequence[str]) -> None:
    """Stops at a launcher's file that only the shell knows.

    Raises:
        InputError: it is one.
    """
    for name, value in pairwise([part for word in words for part in word.split("=", 1)]):
        if name in _FILES and UNKNOWN in value:
            raise InputError(
                f"{name} {shown(value)} is known only where the script runs",
                remedy="write its path there, or export the variable's value in the script",
            )


def counted(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words without counts that only the shell knows, and those; sbatch or a flag says them."""
    found: list[str] = []
    unknown: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if equals and name in PASSED and UNKNOWN in value:
            unknown[name] = value
            continue
        if key in _COUNTS and name.startswith("--"):
            value = value if equals else "".join(rest[:1])
            if UNKNOWN in value:
                unknown[key] = value
                rest = rest if equals else rest[1:]
                continue
        found.append(word)
    return found, unknown
