"""``mpirun`` and ``mpiexec`` in front of a line, of Open MPI, MPICH or Intel MPI.

Open MPI 5.0 mpirun(1); MPICH 4 mpiexec(1). Ranks are counted, nothing is started.
"""

import re
from collections.abc import Mapping, Sequence

from zero_sizer.errors import InputError
from zero_sizer.hardware import hostfile
from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.words import number
from zero_sizer.parallel import ranks_of_each

NAMES = ("mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun")
_RANKS = ("np", "n", "c")
_PER_NODE = ("npernode", "N", "ppn", "perhost", "ntasks_per_node", "ranks_per_node")
_HOSTS = ("H", "host", "hosts")
_FILES = ("hostfile", "machinefile", "f", "default_hostfile")
_PAIRS = ("mca", "gmca", "pmca", "omca", "prtemca", "genv", "env")  # take two words
_VARIABLES = ("genv", "env")
_VALUES = (
    *(*_RANKS, *_PER_NODE, *_HOSTS, *_FILES, "x", "envlist", "genvlist"),
    *("map_by", "bind_to", "rank_by", "prefix", "wdir", "wd", "output_filename", "path"),
    *(
        "timeout",
        "report_uri",
        "tune",
        "cpu_set",
        "cpu_list",
        "rankfile",
        "rf",
        "launcher",
        "iface",
    ),
    *("bootstrap", "rmk", "output", "cpus_per_proc", "cpus_per_rank", "display", "personality"),
)
_PER_RESOURCE = re.compile(r"ppr:(\d+):node")


def read(name: str, words: Sequence[str]) -> tuple[Launch, list[str]]:
    """(What it says, the line that it starts).

    Args:
        name: as which it was called.
        words: what follows it.

    Raises:
        InputError: numbers that are none, hosts that cannot be read, or hosts that differ.
    """
    options, environment, rest = _options(words)
    ranks = next((number(options, key, name) for key in _RANKS if key in options), None)
    per_node = next((number(options, key, name) for key in _PER_NODE if key in options), None)
    by_resource = _PER_RESOURCE.search(options.get("map_by", ""))
    if per_node is None and by_resource:
        per_node = int(by_resource.group(1)[:6])
    slots = _slots(options)
    nodes = len(slots) or None
    if per_node and ranks:
        nodes = ranks_of_each(ranks, per_node) or nodes
    elif ranks:
        per_node = ranks_of_each(ranks, nodes or 1)
    elif per_node is None and slots:
        per_node = _alike(name, slots)
    launch = Launch(
        command=(),
        launcher=name,
        nodes=nodes,
        gpus_per_node=per_node or None,
        environment=environment,
        mpi=True,
    )
    return launch, rest


def _options(words: Sequence[str]) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Options by name, variables that are handed on with a value, and the line."""
    options: dict[str, str] = {}
    environment: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word, equals, value = rest.pop(0).partition("=")
        name = word.lstrip("-").replace("-", "_")
        if name in _PAIRS:
            first, second = (*rest[:2], "", "")[:2]
            rest = rest[2:]
            if name in _VARIABLES:
                environment[first] = second
        elif equals or name in _VALUES:
            found = value if equals else "".join(rest[:1])
            rest = rest if equals else rest[1:]
            if name == "x" and "=" in found:
                key, _, text = found.partition("=")
                environment[key] = text
            options[name] = found
    return options, environment, rest


def _slots(options: Mapping[str, str]) -> dict[str, int]:
    """Host -> its slots, as far as the line says."""
    file = next((options[name] for name in _FILES if options.get(name)), None)
    if file is not None:
        return dict(hostfile.read(file))
    found: dict[str, int] = {}
    for host in ",".join(options.get(name, "") for name in _HOSTS).split(","):
        name, _, count = host.partition(":")
        if name:
            found[name] = found.get(name, 0) + (int(count[:6]) if count.isdecimal() else 1)
    return found


def _alike(name: str, slots: Mapping[str, int]) -> int:
    if len(set(slots.values())) > 1:
        counts = ", ".join(f"{host} {count}" for host, count in slots.items())
        raise InputError(f"{name}: hosts with different numbers of slots: {counts}")
    return next(iter(slots.values()))
