"""Training scripts on this CPU: real ranks over gloo, until the second step that is taken.

Each rank writes what its engine holds to ``OUTPUT.RANK``, as JSON.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STEPS = 2


_RANKS = """
import json, os, signal, socket, sys
from importlib import import_module

asked = json.load(sys.stdin)
for name in asked["imports"]:
    import_module(name)
from support import script_for_real

def start(run, rank, port):
    child = os.fork()
    if child:
        return child
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": run["ranks"], "MASTER_PORT": port}
    places |= {"LOCAL_WORLD_SIZE": run["ranks"], "LOCAL_SIZE": run["ranks"]}
    os.environ.update({name: str(value) for name, value in places.items()})
    os.environ.update(run["environment"], MASTER_ADDR="127.0.0.1")
    file = os.open(run["output"] + ".err", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    try:
        script_for_real.main(run["output"], *run["command"])
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # a rank that held something has ended already

for run in asked["runs"]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = {start(run, rank, port) for rank in range(run["ranks"])}
    while ranks:
        ended, status = os.wait()
        ranks.discard(ended)
        if status:  # the others would wait for it
            for rank in ranks:
                os.kill(rank, signal.SIGKILL)
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A script with its arguments, on so many ranks, with what its launcher sets."""

    script: Path
    arguments: tuple[str, ...]
    ranks: int
    environment: Mapping[str, str]


def held(
    folder: Path, runs: Mapping[str, Run], *, imports: tuple[str, ...]
) -> dict[str, list[dict[str, int]] | str]:
    """Name -> bytes that each rank's engine holds after its second step, or what a rank printed.

    Ranks are forks of one process, which imports once what all of them need.

    Args:
        folder: where the scripts run.
        runs: one after the other.
        imports: what they need.
    """
    from support.script_runs import BESIDE, ROOT, _paths

    outputs = {name: str(folder / f"{number}.held") for number, name in enumerate(runs)}
    asked = [
        {**vars(run), "command": [str(run.script), *run.arguments], "output": outputs[name]}
        for name, run in runs.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", _RANKS],
        input=json.dumps({"imports": imports, "runs": asked}, default=str),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*_paths(), str(BESIDE), str(ROOT / "tests")]),
            "HF_HOME": str(folder),
            "DS_ACCELERATOR": "cpu",
        },
    )
    assert done.returncode == 0, done.stderr[-9000:]
    found: dict[str, list[dict[str, int]] | str] = {}
    for name, run in runs.items():
        parts = [Path(f"{outputs[name]}.{rank}") for rank in range(run.ranks)]
        if all(part.exists() for part in parts):
            found[name] = [json.loads(part.read_text()) for part in parts]
        else:
            found[name] = Path(f"{outputs[name]}.err").read_text()
    return found


def _bytes(tensors: Iterable[Any]) -> int:
    """Of the storages behind them, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _held(engine: Any) -> dict[str, int]:
    optimizer = engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    states = [t for state in inner.state.values() for t in state.values() if hasattr(t, "numel")]
    whole = [group["params"] for group in inner.param_groups]
    return {
        "parameters": _bytes(engine.module.parameters()),
        "numel": sum(p.numel() for p in engine.module.parameters()),
        "optimizer_states": _bytes(t for t in states if t.numel() > 1),
        "stepped": _bytes(p for params in whole for p in params),
    }


def main(output: str, *command: str) -> None:
    """Run ``command`` as this rank."""
    import deepspeed
    import torch
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.engine import DeepSpeedEngine

    from zero_sizer.dryrun.launched import cpu

    cpu.prepare(get_accelerator(), "127.0.0.1")
    torch.cuda.set_device = lambda device: None
    take_step = DeepSpeedEngine._take_model_step

    def count(engine: Any, *args: Any, **kwargs: Any) -> None:
        take_step(engine, *args, **kwargs)
        # A step whose gradients overflow is skipped, and makes no states.
        if engine.global_steps - engine.skipped_steps >= STEPS:
            rank = deepspeed.comm.get_rank()
            Path(f"{output}.{rank}").write_text(json.dumps(_held(engine)))
            deepspeed.comm.barrier()
            os._exit(0)

    DeepSpeedEngine._take_model_step = count
    sys.argv = list(command)
    runpy.run_path(command[0], run_name="__main__")
