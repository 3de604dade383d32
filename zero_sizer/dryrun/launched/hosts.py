"""Hosts of a launched run: a keeper on each, over ssh or whatever else runs a command there.

DeepSpeed's own multi-node launchers (pdsh, mpirun, srun) start ``deepspeed.launcher.launch`` on
every host and have nothing there that would end it when they are gone: pdsh's answer to Ctrl-C is
a second connection with ``pkill -f`` (deepspeed/launcher/multinode_runner.py:128), and to a
SIGKILL there is none. Here the same module is started on every host by a keeper, which ends with
whoever asked.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from zero_sizer.dryrun.keeping import Keeper, Place, greet, kept
from zero_sizer.errors import InputError
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import shown

# No question on the terminal, and an end where the network has gone (ssh_config(5)).
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=10"
# deepspeed/launcher/runner.py:36 and accelerator/cuda_accelerator.py:412, then what is read here.
_EXPORTED = ("MLFLOW", "PYTHON", "MV2", "UCX", "NCCL", "GLOO", "DS_", "ZERO_SIZER_")
_EXPORTED_WHOLE = ("OMP_NUM_THREADS",)
_FILE = ".deepspeed_env"  # runner.py:37, in the home folder and in this one


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Settings of a launched run over several hosts.

    Attributes:
        slots: ranks by host, in the order of the hostfile.
        rsh: command line that runs a command on a host, which follows it.
        master: address at which the ranks meet, ``host`` or ``host:port``; empty: the first
            address that the first host has, as DeepSpeed takes it, and a free port.
        silence: seconds after which a host that gives no sign is lost.
    """

    slots: Mapping[str, int]
    rsh: str = SSH
    master: str = ""
    silence: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Host:
    """One host of a run.

    Attributes:
        name: as the hostfile has it.
        ranks: how many it runs.
        keeper: owns all that is there.
        environment: variables set there.
    """

    name: str
    ranks: int
    keeper: Keeper
    environment: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def reached(hosts: Hosts) -> Iterator[list[Host]]:
    """A keeper on every host; all of them end with the block.

    Raises:
        WitnessError: a host cannot be reached.
        InputError: a host's name or the command is none.
    """
    try:
        through = tuple(shlex.split(hosts.rsh))
    except ValueError as error:
        raise InputError(f"not a command: {error}", where="--rsh") from None
    if not through or shutil.which(through[0]) is None:
        raise InputError(f"no command {shown(hosts.rsh)}", remedy=f"e.g. {SSH}", where="--rsh")
    environment = _environment()
    with contextlib.ExitStack() as stack:
        found: list[Host] = []
        try:
            for name, ranks in hosts.slots.items():
                place = Place(host=name, through=through, silence=hosts.silence)
                keeper = stack.enter_context(kept("launched", noise=subprocess.PIPE, place=place))
                found.append(Host(name=name, ranks=ranks, keeper=keeper, environment=environment))
            greet([host.keeper for host in found])
            yield found
        finally:  # all are told before the first is waited for
            for host in found:
                host.keeper.hang_up()


def meeting(hosts: Sequence[Host], master: str) -> tuple[str, int]:
    """Address and port at which the ranks meet.

    Raises:
        InputError: the port is no number, or the first host has no address.
    """
    address, colon, port = master.rpartition(":") if ":" in master else (master, "", "")
    if colon and not (port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(f"{port!r} is not a port", remedy="HOST or HOST:PORT", where="--master")
    if address and port:
        return address, int(port)
    first, free = hosts[0].keeper.address()
    if not (address or first):
        raise InputError(
            f"host {hosts[0].name} has no address that others reach",
            remedy="say where the ranks meet: --master HOST or HOST:PORT",
            where="hostfile",
        )
    return address or first, int(port or free)


def _environment() -> dict[str, str]:
    """Variables that DeepSpeed's launcher hands to every host."""
    here = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_EXPORTED) or name in _EXPORTED_WHOLE
    }
    name = os.environ.get("DS_ENV_FILE", _FILE)
    for folder in (Path.home(), Path()):
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            pairs = (line.partition("=") for line in lines if "=" in line)
            here.update((key.strip(), value.strip()) for key, _, value in pairs)
    return here
