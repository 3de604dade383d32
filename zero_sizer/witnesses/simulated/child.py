"""One simulated rank in a process of its own.

    python -m zero_sizer.witnesses.simulated.child REQUEST.json RECORDING.json

REQUEST holds the fields of ``request.Request`` (``{"config": {...}, "hf_config": {...},
"world_size": 8, "seq_len": 4096, "zero_init": true, ...}``); RECORDING is written in the
contract's form: per phase, ``device.gpu.max_allocated`` is the phase's peak, ``allocated`` what is
left at its end, ``live`` who owns it. From Python, ``zero_sizer.witnesses.simulated.run`` starts
this process for a ``Job``, ``run_request`` for a ``Request``. Progress goes to stderr, one JSON
object a line, behind ``@progress``. A failure is written to RECORDING as ``{"error": ...}``.
"""

import contextlib
import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from zero_sizer.errors import ZeroSizerError
from zero_sizer.witnesses.simulated.request import Request

PROGRESS = "@progress "


def record(request: Request, report: Any = lambda done, name: None) -> dict[str, Any]:
    """Runs the request in this process; returns the recording's mapping."""
    from zero_sizer.witnesses.recording import RankRecord, Recording
    from zero_sizer.witnesses.simulated import engine as loop
    from zero_sizer.witnesses.simulated.observer import PhaseObserver
    from zero_sizer.witnesses.simulated.simulation import Rank, simulated

    started = time.perf_counter()
    rank = Rank(
        rank=request.rank,
        world_size=request.world_size,
        local_world_size=request.local_world_size,
        gpu_bytes=request.gpu_bytes,
        host_bytes=request.host_bytes,
        short_loops=request.short_loops,
    )
    with simulated(rank, keep_events=request.keep_events) as simulation:
        import deepspeed
        import torch

        from zero_sizer.witnesses.simulated import device, model

        where = torch.device(device.NAME, rank.rank % rank.local_world_size)
        observer = PhaseObserver(simulation.tracker, report)
        deepspeed.init_distributed(dist_backend="fake")
        observer.begin("init", step=0, micro_step=0)
        module = model.build(request)
        optimizer = model.client_optimizer(request, module)
        engine = loop.initialize(dict(request.config), module, optimizer)
        del module, optimizer
        observer.end(engine)
        loop.train(
            engine,
            lambda: model.batch(request, where),
            steps=request.steps,
            grad_accum=engine.gradient_accumulation_steps(),
            observer=observer,
        )
    recording = Recording(
        how="simulated",
        versions={name: metadata.version(name) for name in ("torch", "deepspeed", "transformers")},
        world_size=request.world_size,
        job=json.loads(request.to_json()),
        ranks=(RankRecord(rank=request.rank, phases=tuple(observer.records)),),
        log=tuple(simulation.log),
        extra={"seconds": round(time.perf_counter() - started, 2)},
    )
    answer = recording.to_json()
    if simulation.tracker.events is not None:
        answer["events"] = simulation.tracker.events
    return answer


def main(request_path: str, recording_path: str) -> int:
    """Runs the request in a file and writes the recording, or the error, to another."""
    request = Request.from_json(Path(request_path).read_text(encoding="utf-8"))
    progress = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding="utf-8")

    def report(done: int, name: str) -> None:
        progress.write(PROGRESS + json.dumps({"done": done, "phase": name}) + "\n")

    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = record(request, report)
    except ZeroSizerError as error:
        answer = {"error": {"kind": type(error).__name__, "message": str(error)}}
    except Exception as error:  # whatever DeepSpeed, torch or the user's model raise
        message = " ".join(str(error).split()) or "no message"
        text = f"{type(error).__name__}: {message}"
        answer = {"error": {"kind": "WitnessError", "message": text, "trace": _trace(error)}}
    Path(recording_path).write_text(json.dumps(answer) + "\n", encoding="utf-8")
    return 3 if "error" in answer else 0


def _trace(error: BaseException) -> list[str]:
    import traceback

    return traceback.format_exception(error)[-40:]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
