"""Simulated runs as forks of one process that imported torch, DeepSpeed and transformers once.

A dry run's own process spends seconds on imports before its first allocation, and the suite starts
many. ``warmed`` lets those that this process starts be forks of a server; what is tested of
processes themselves starts real ones, through the command line.

As a script: without arguments the server, with ``SOCKET MODULE ARGUMENT...`` one run of it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

MODULES = ("zero_sizer.dryrun.simulated.child", "zero_sizer.dryrun.simulated.script")
# Read when they are imported, so that a fork would not see another value.
READ_EARLY = (
    "HF_",
    "TRANSFORMERS_",
    "XDG_",
    "TORCH",
    "PYTORCH",
    "DS_",
    "CUDA",
    "OMP_",
    "ACCELERATE_",
)
# By DeepSpeed, in whichever process: a test that imports it must not end the forks.
SET_BY_IMPORTS = ("PYTORCH_NVML_BASED_CUDA_CHECK",)
READ_LATE = ("TORCHELASTIC_",)  # of the job that torchrun starts, which is asked for in a run
TWO_RANKS = {"world_size": 2, "local_world_size": 2}


@contextlib.contextmanager
def warmed(folder: Path) -> Iterator[None]:
    """Simulated runs of this process are forks of a server, which the first of them starts.

    Args:
        folder: an empty one for the server's socket.
    """
    from zero_sizer.dryrun.keeping import Keeper

    path, before, start = folder / "server", _read_early({}), Keeper.start
    servers: list[subprocess.Popen[bytes]] = []

    def fork(
        self: Keeper,
        command: Any,
        *,
        log: Any = None,
        env: Any = MappingProxyType({}),
        cwd: str = "",
    ) -> None:
        is_one = len(command) > 2 and command[1] == "-m" and command[2] in MODULES
        if is_one and _read_early(env) == before:
            if not servers:
                servers.append(_served(path))
            command = [sys.executable, "-I", "-S", __file__, str(path), *command[2:]]
        start(self, command, log=log, env=env, cwd=cwd)

    Keeper.start = fork  # type: ignore[method-assign]
    try:
        yield
    finally:
        Keeper.start = start  # type: ignore[method-assign]
        for server in servers:
            server.communicate()  # the end of its standard input is its own


def _read_early(more: dict[str, str]) -> dict[str, str]:
    values = {**os.environ, **more}
    return {
        name: value
        for name, value in values.items()
        if name.startswith(READ_EARLY)
        and not name.startswith(READ_LATE)
        and name not in SET_BY_IMPORTS
    }


def _served(path: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, __file__]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{path}\n".encode())
    server.stdin.flush()  # it stays open: its end is the server's
    assert server.stdout.readline() == b"ready\n"
    return server


def serve(path: str) -> None:
    """Fork for every connection, until standard input ends."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    _import_everything()
    threading.Thread(target=_leave_with_standard_input, daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    os.write(1, b"ready\n")
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _run(connection)
        connection.close()


def _leave_with_standard_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def _import_everything() -> None:
    import gc

    from zero_sizer.simulator.simulation import Rank, simulated

    with simulated(Rank(**TWO_RANKS)):
        import deepspeed.runtime.zero.stage3
        import transformers.models.auto.modeling_auto
        from transformers import Trainer

        from zero_sizer.simulator.operators import flash

        del Trainer, deepspeed, transformers, flash
    gc.collect()
    gc.freeze()  # forks share what was imported: collecting it would copy it into each


def _run(connection: socket.socket) -> None:
    """One run in this fork: the other side's streams, folder, variables and end."""
    import runpy

    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    asked = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["variables"])
    sys.path[:0] = filter(None, asked["variables"].get("PYTHONPATH", "").split(os.pathsep))
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    code: Any = 1
    try:
        sys.argv = [asked["module"], *asked["arguments"]]
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([code or 0]))
        os._exit(0)


def _end_with(connection: socket.socket) -> None:
    if not connection.recv(1):
        os._exit(1)


def ask(path: str, module: str, arguments: list[str]) -> int:
    """Run a module in a fork of the server; its exit code."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    variables = dict(os.environ)
    asked = {"module": module, "arguments": arguments, "folder": os.getcwd()}
    message = json.dumps({**asked, "variables": variables}).encode()
    socket.send_fds(connection, [message], [0, 1, 2])
    answer = connection.recv(1)
    return answer[0] if answer else 1


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(ask(sys.argv[1], sys.argv[2], sys.argv[3:]))
    serve(sys.stdin.buffer.readline().decode().strip())
