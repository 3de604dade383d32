"""A training script on this CPU: real ranks over gloo, until its second optimizer step.

Run by ``torchrun``: ``script_for_real.py OUTPUT SCRIPT ARGUMENTS...``. Each rank writes what its
engine holds to ``OUTPUT.RANK``, as JSON.
"""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

STEPS = 2


def held(
    folder: Path, script: Path, *arguments: str, ranks: int, environment: Mapping[str, str] = {}
) -> list[dict[str, int]]:
    """Bytes that each rank's engine holds after its second step.

    Args:
        folder: where the script runs.
        script: the script, unchanged.
        arguments: its own.
        ranks: processes.
        environment: variables that its launcher sets.

    Raises:
        AssertionError: the script failed; with the end of what it printed.
    """
    from support.script_runs import BESIDE, ROOT, _paths

    output = folder / f"{script.stem}.held"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", str(ranks), str(Path(__file__)), str(output)),
            *(str(script), *arguments),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*_paths(), str(BESIDE), str(ROOT / "tests")]),
            "HF_HOME": str(folder),
            "DS_ACCELERATOR": "cpu",
            "LOCAL_SIZE": str(ranks),
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr[-9000:]
    return [json.loads(Path(f"{output}.{rank}").read_text()) for rank in range(ranks)]


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
    take_step, taken = DeepSpeedEngine._take_model_step, []

    def count(engine: Any, *args: Any, **kwargs: Any) -> None:
        take_step(engine, *args, **kwargs)
        taken.append(1)
        if len(taken) == STEPS:
            rank = deepspeed.comm.get_rank()
            Path(f"{output}.{rank}").write_text(json.dumps(_held(engine)))
            deepspeed.comm.barrier()
            os._exit(0)

    DeepSpeedEngine._take_model_step = count
    sys.argv = list(command)
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    if "torchvision" in Path(sys.argv[2]).read_text():
        import support.cifar_ready  # noqa: F401
    main(*sys.argv[1:])
