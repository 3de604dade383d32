"""Starting the ``deepspeed`` launcher so that nothing it starts can outlive us."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from zero_sizer.dryrun.keeping import Keeper

_UNUSED_PORT = "29500"  # of the launcher's variables; the ranks meet in a file


def launch(arguments: list[str], *, ranks: int, keeper: Keeper, timeout: float) -> int:
    """Run the worker module under the ``deepspeed`` launcher and wait for it.

    Args:
        arguments: of the worker.
        ranks: processes to start on this machine.
        keeper: gets the logs into its folder: ``launcher.log`` and one log per rank.
        timeout: seconds until everything is stopped.

    Returns:
        The launcher's exit code.

    Raises:
        subprocess.TimeoutExpired: it took too long; all is stopped with the keeper.
    """
    folder = keeper.folder
    command = [sys.executable, "-m", "deepspeed.launcher.runner"]
    command += ["--num_gpus", str(ranks)]
    command += ["--master_addr", "127.0.0.1", "--master_port", _UNUSED_PORT]
    # A hostfile would make the launcher start ranks on other machines.
    command += ["--hostfile", str(folder / "no-hostfile")]
    command += ["--enable_each_rank_log", str(folder / "ranks")]
    command += ["--module", "zero_sizer.dryrun.launched.worker", *arguments]
    command += ["--rendezvous", str(folder / "rendezvous")]
    keeper.start(command, log=folder / "launcher.log", env=_importable())
    return keeper.wait(timeout)


def _importable() -> Mapping[str, str]:
    """PYTHONPATH under which the ranks import what this process imports."""
    package_root = str(Path(__file__).parents[3])
    paths = [package_root, os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
