"""Simulated runs as forks of one process that imported torch, DeepSpeed and transformers once.

A dry run's own process spends seconds on imports before its first allocation, and the suite starts
many. ``warmed`` lets those that this process starts be forks of a server; what is tested of
processes themselves starts real ones, through the command line.

Real ranks are forks too where a test says so (``ranks_forked``): DeepSpeed's launcher starts them
all the same. They have a server of their own, which has never been a simulated GPU.

As a script: without arguments a server, with ``SOCKET MODULE ARGUMENT...`` one run of it.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

MODULES = ("zero_sizer.dryrun.simulated.child", "zero_sizer.dryrun.simulated.script")
LAUNCHER, WORKER = "deepspeed.launcher.launch", "zero_sizer.dryrun.launched.worker"
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
# By DeepSpeed and torch, in whichever process: a test that imports them must not end the forks.
SET_BY_IMPORTS = ("PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR")
# Of the job that torchrun starts, which is asked for in a run; and where this project's own cache
# is: the hub's is where tests say HF_HOME.
READ_LATE = ("TORCHELASTIC_", "XDG_CACHE_HOME")
TWO_RANKS = {"world_size": 2, "local_world_size": 2}
_ASKING: list[Callable[[Any], list[str]]] = []  # of the session's server
_BEFORE: list[dict[str, str]] = []  # variables that the session's server read
_FORKED: list[str] = []  # modules whose processes are forks for now, beside MODULES


@contextlib.contextmanager
def warmed(folder: Path) -> Iterator[None]:
    """Simulated runs of this process are forks of a server, which the first of them starts.

    Args:
        folder: an empty one for the server's socket.
    """
    from zero_sizer.dryrun.keeping import Keeper

    before, start = _read_early({}), Keeper.start
    _BEFORE.append(before)
    servers: dict[Path, subprocess.Popen[bytes]] = {}

    def asking(name: str, command: Any) -> list[str]:
        path = folder / name
        if path not in servers:
            servers[path] = _served(path)
        return _asking(path, command)

    def fork(
        self: Keeper,
        command: Any,
        *,
        log: Any = None,
        env: Any = MappingProxyType({}),
        cwd: str = "",
    ) -> None:
        module = _module(command)
        if module in (*MODULES, *_FORKED) and _read_early(env) == before:
            command = asking("server" if module in MODULES else "ranks", command)
        start(self, command, log=log, env=env, cwd=cwd)

    Keeper.start = fork  # type: ignore[method-assign]
    _ASKING.append(functools.partial(asking, "server"))
    try:
        yield
    finally:
        _ASKING.clear()
        _BEFORE.clear()
        Keeper.start = start  # type: ignore[method-assign]
        for server in servers.values():
            server.communicate()  # the end of its standard input is its own


def left_behind() -> dict[str, str | None]:
    """Variables that are no longer as the server read them: whatever starts now is no fork."""
    now, before = _read_early({}), _BEFORE[-1]
    return {
        name: now.get(name)
        for name in now.keys() | before.keys()
        if now.get(name) != before.get(name)
    }


def as_fork(command: list[str]) -> list[str]:
    """A command that runs the Python module of ``command`` in a fork of the server.

    What the server imported keeps the variables that the server read.
    """
    return _ASKING[-1](command)


@contextlib.contextmanager
def ranks_forked() -> Iterator[None]:
    """Inside, the launcher of real ranks and the ranks themselves are forks, too."""
    _FORKED.append(LAUNCHER)
    try:
        yield
    finally:
        _FORKED.remove(LAUNCHER)


def _module(command: Any) -> str:
    """The module that a Python command runs."""
    return command[command.index("-m") + 1] if "-m" in command else ""


def _asking(path: Path, command: Any) -> list[str]:
    """The command that asks a server for a fork in place of a process."""
    words = command[command.index("-m") + 1 :]
    return [sys.executable, "-I", "-S", __file__, str(path), *words]


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
    answer = os.dup(1)
    os.dup2(2, 1)  # DeepSpeed says on standard output which accelerator it found
    _import_of_ranks() if path.endswith("ranks") else _import_everything()
    threading.Thread(target=_leave_with_standard_input, daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    os.dup2(answer, 1)
    os.write(1, b"ready\n")
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _run(connection, Path(path))
        connection.close()


def _leave_with_standard_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def _import_everything() -> None:
    import gc

    from zero_sizer.simulator.simulation import Rank, simulated
    from zero_sizer.util.gc_paused import keep_old_objects

    with simulated(Rank(**TWO_RANKS)):
        import deepspeed.module_inject.auto_ep_layer
        import deepspeed.runtime.zero.muon.muon_optimizer
        import deepspeed.runtime.zero.stage3
        import transformers.models.auto.modeling_auto
        from transformers import Trainer

        from zero_sizer.dryrun import build_model, training_loop
        from zero_sizer.dryrun.packages import versions
        from zero_sizer.simulator import batches, modules
        from zero_sizer.simulator.operators import flash

        versions()
        del Trainer, deepspeed, transformers, flash, build_model, training_loop, batches, modules
    gc.collect()
    keep_old_objects()  # forks share what was imported: collecting it would copy it into each


def _import_of_ranks() -> None:
    """What the launcher and every rank need."""
    import gc

    import deepspeed.launcher.launch
    import deepspeed.runtime.zero.stage3

    from zero_sizer.dryrun.launched import rank, start
    from zero_sizer.util.gc_paused import keep_old_objects

    del deepspeed, rank, start
    gc.collect()
    keep_old_objects()


def _run(connection: socket.socket, path: Path) -> None:
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
    threading.Thread(target=_end_with, args=(connection, os._exit), daemon=True).start()
    _end_through(connection)
    code: Any = 1
    if asked["module"] == LAUNCHER:
        _start_as_forks(WORKER, path)
    try:
        sys.argv = [asked["module"], *asked["arguments"]]
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _end_through(connection: socket.socket) -> None:
    """The exit code of this fork goes to the other side, however the module ends."""
    here, leave = os.getpid(), os._exit

    def leave_with(code: int) -> None:
        if os.getpid() == here:  # not a fork of its own
            connection.send(bytes([code]))
        leave(code)

    os._exit = leave_with  # type: ignore[assignment]


def _start_as_forks(module: str, path: Path) -> None:
    """Processes of this module that this process starts are forks of the server."""
    original = subprocess.Popen

    def start(command: Any, *args: Any, **kwargs: Any) -> Any:
        is_one = _module(command) == module
        return original(_asking(path, command) if is_one else command, *args, **kwargs)

    subprocess.Popen = start  # type: ignore[assignment,misc]


def _end_with(connection: socket.socket, leave: Any) -> None:
    if not connection.recv(1):
        leave(1)


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
