"""DeepSpeed itself as the judge of a config: its parser and its engine, on one CPU rank.

Run as a script, it reads a JSON list of jobs from stdin, ``{"config": {...}, "steps": 0}``, and
writes a JSON list of outcomes to stdout: ``{"type": ""}`` when the engine comes up (and trains
``steps`` steps), else ``{"at": "parse|init|step", "type": "ValueError", "message": "..."}``. Each
engine runs in a forked child, so that one that dies takes nothing with it.

Compiled kernels are replaced by empty functions: what is judged is which configs are refused, and
that is Python; the numbers such an engine computes mean nothing. For the same reason the CPU is
said to know fp16, and is not asked who made it, which takes a second each time.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WIDTH = 64
CPU_SECONDS = 300  # of work, not of waiting: other processes may have the machine
ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "LOCAL_RANK": "0",
    "RANK": "0",
    "WORLD_SIZE": "1",
    "OMP_NUM_THREADS": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


def judge(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outcome of each job, from one process that imports DeepSpeed once."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)  # type: ignore[no-any-return]


class _NoKernels:
    """Stands for a compiled extension."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def _prepare() -> None:
    import cpuinfo
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.op_builder.builder import OpBuilder
    from deepspeed.ops.op_builder.cpu.no_impl import NotImplementedBuilder

    OpBuilder.load = NotImplementedBuilder.load = lambda *_, **__: _NoKernels()
    # It runs a compiler for each engine. By its name: ``deepspeed.comm``'s ``torch`` is PyTorch.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None
    get_accelerator().is_fp16_supported = lambda: True
    cpuinfo.get_cpu_info = dict  # asked for the CPU's maker by every optimizer on the host


def _parse(config: dict[str, Any]) -> dict[str, Any]:
    from deepspeed.runtime.config import DeepSpeedConfig

    try:
        DeepSpeedConfig(json.loads(json.dumps(config)))
    except Exception as error:
        return _refusal("parse", error)
    return {"type": ""}


def _refusal(at: str, error: BaseException) -> dict[str, Any]:
    return {"at": at, "type": type(error).__name__, "message": str(error)[:300]}


def _engine(config: dict[str, Any], store: str, steps: int) -> dict[str, Any]:
    import deepspeed
    import torch

    torch.distributed.init_process_group("gloo", f"file://{store}", world_size=1, rank=0)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, WIDTH)
    )
    at = "init"
    try:
        engine, *_ = deepspeed.initialize(model=model, config=config)
        at = "step"
        for _ in range(steps):
            dtype = next(engine.module.parameters()).dtype
            engine.backward(engine(torch.ones(4, WIDTH, dtype=dtype)).float().mean())
            engine.step()
    except Exception as error:
        return _refusal(at, error)
    return {"type": ""}


def _in_child(config: dict[str, Any], steps: int) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            os.close(read_end)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
            os.chdir(folder)
            before = set(sys.modules)
            outcome = _engine(config, f"{folder}/store", steps)
            outcome["modules"] = sorted(set(sys.modules) - before)
            with os.fdopen(write_end, "w") as pipe:
                json.dump(outcome, pipe)
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
    outcome = json.loads(text) if text else {"at": "init", "type": "died"}
    _import_once(outcome.pop("modules", []))
    return outcome


def _import_once(modules: list[str]) -> None:
    """Import here what a child had to import, so that the next one inherits it."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()


def _outcome(job: dict[str, Any]) -> dict[str, Any]:
    outcome = _parse(job["config"])
    if outcome["type"] or job.get("parse_only"):
        return outcome
    return _in_child(job["config"], job.get("steps", 0))


def main() -> None:
    """Judge every job on stdin."""
    jobs = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # DeepSpeed logs to stdout
        _prepare()
        gc.freeze()  # DeepSpeed collects at every start: not what was imported, which forks share
        json.dump([_outcome(job) for job in jobs], answers)


if __name__ == "__main__":
    main()
