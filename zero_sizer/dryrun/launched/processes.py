"""Starting DeepSpeed's launcher on every host so that nothing it starts can outlive us."""

import base64
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from zero_sizer.dryrun.keeping import Keeper, answers, importable
from zero_sizer.dryrun.launched.hosts import Host

_UNUSED = ("127.0.0.1", 29500)  # of the launcher's variables, where the ranks meet in a file


def launch(
    hosts: Sequence[Host],
    arguments: Sequence[str],
    *,
    meet: tuple[str, int] | None = None,
    timeout: float,
    meanwhile: Callable[[], None] | None = None,
) -> int:
    """Run the worker module under ``deepspeed.launcher.launch`` on every host and wait for it.

    Args:
        hosts: the first has rank 0. Each gets logs into its keeper's folder: ``launcher.log`` and
            one per rank.
        arguments: of the worker; ``{folder}`` in them is the folder of the host's keeper.
        meet: address and port at which the ranks meet; in a file of the only host where None.
        timeout: seconds until everything is stopped.
        meanwhile: called a few times a second.

    Returns:
        The first exit code that is not 0, as soon as it is there; else 0.

    Raises:
        subprocess.TimeoutExpired: it took too long; all is stopped with the keepers.
        WitnessError: a host was lost.
    """
    world = {host.name: list(range(host.ranks)) for host in hosts}
    encoded = base64.urlsafe_b64encode(json.dumps(world).encode()).decode()
    address, port = meet or _UNUSED
    for number, host in enumerate(hosts):
        folder = host.keeper.folder
        command = [sys.executable, "-u", "-m", "deepspeed.launcher.launch"]
        command += [f"--world_info={encoded}", f"--node_rank={number}"]
        command += [f"--master_addr={address}", f"--master_port={port}"]
        command += [f"--enable_each_rank_log={folder / 'ranks'}"]
        command += ["--module", "zero_sizer.dryrun.launched.worker"]
        command += [word.format(folder=folder) for word in arguments]
        command += [] if meet else ["--rendezvous", str(folder / "rendezvous")]
        host.keeper.start(
            command,
            log=folder / "launcher.log",
            env={**host.environment, **importable(host.environment)},
            cwd=str(Path.cwd()),  # as DeepSpeed's launcher does (multinode_runner.py:110)
        )
    keepers = [host.keeper for host in hosts]
    for _, answer in answers(keepers, "code", timeout, meanwhile):
        if answer["code"] != 0:
            return int(answer["code"])
    return 0


def gather(hosts: Sequence[Host], keeper: Keeper) -> None:
    """Bring what the hosts wrote into the folder of ``keeper``, with the times of its writing."""
    for host in hosts:
        if host.keeper is keeper:
            continue
        for file in host.keeper.get("out/*.json", "ranks/*.log", "launcher.log"):
            path = keeper.folder / file["name"]
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="utf-8") as whole:  # every host has a launcher.log
                whole.write(file["text"])
            os.utime(path, ns=(file["changed"], file["changed"]))
