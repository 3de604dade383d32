"""Simulated ranks in a process of their own.

    python -m zero_sizer.dryrun.simulated.child REQUESTS.json FOLDER

REQUESTS is a list of mappings with the fields of ``request.Request`` (``{"config": {...},
"hf_config": {...}, "world_size": 8, "seq_len": 4096, "zero_init": true, ...}``); for each, FOLDER
gets ``INDEX.json``: a recording in the contract's form, or ``{"error": ...}``. Per phase,
``device.gpu.max_allocated`` is the phase's peak, ``allocated`` what is left at its end, and
``live`` who owns it. From Python: ``zero_sizer.dryrun.simulated.run`` for a ``Job``,
``run_request`` for a ``Request``, ``run_requests`` for many (in forks of one process, which
imports torch and DeepSpeed once). Progress goes to stderr, one JSON object a line, behind
``@progress``.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.packages import versions
from zero_sizer.dryrun.replies import Report
from zero_sizer.dryrun.simulated.request import Request
from zero_sizer.errors import ZeroSizerError
from zero_sizer.util.gc_paused import keep_old_objects


def record(request: Request, report: Report) -> dict[str, Any]:
    """Runs the request in this process; returns the recording's mapping."""
    from zero_sizer.dryrun import training_loop as loop
    from zero_sizer.dryrun.simulated.observer import PhaseObserver
    from zero_sizer.simulator.simulation import Rank

    started = time.perf_counter()
    rank = Rank(**{field.name: getattr(request, field.name) for field in fields(Rank)})
    with contextlib.ExitStack() as stack:
        simulation = stack.enter_context(_of(request, rank))
        import deepspeed
        import torch

        from zero_sizer.dryrun import build_model
        from zero_sizer.simulator import batches, device, modules

        stack.enter_context(build_model.attention_packages(request))
        where = torch.device(device.NAME, 0)
        observer = PhaseObserver(simulation.tracker, report)
        deepspeed.init_distributed(dist_backend="fake")
        observer.begin("init", step=0, micro_step=0)
        module = build_model.build(request)
        if request.new_tokens is not None:
            from zero_sizer.dryrun.simulated import inference

            inference.run(request, module, where, observer)
            return _recording(request, observer, simulation, started)
        optimizer = build_model.client_optimizer(request, module)
        engine = loop.initialize(request.config, module, optimizer)
        del module, optimizer
        observer.end(engine)
        if request.keep_events:
            modules.follow(engine.module, simulation.tracker)
        feed = build_model.feed_of(request)
        loop.train(
            engine,
            lambda: build_model.batch(request, where),
            steps=request.steps,
            # 0 where ZenFlow itself says when it steps (zenflow/engine.py:54)
            grad_accum=engine.gradient_accumulation_steps() or request.grad_accum,
            observer=observer,
            loss_of=lambda output, batch: batches.loss_of(output, feed, batch),
        )
    return _recording(request, observer, simulation, started)


def _of(request: Request, rank: Any) -> Any:
    from zero_sizer.simulator.simulation import OF_INPUTS, simulated

    most = OF_INPUTS if request.feed is not None else 0
    return simulated(rank, keep_events=request.keep_events, keep_values=most)


def _recording(request: Request, observer: Any, simulation: Any, started: float) -> dict[str, Any]:
    from zero_sizer.dryrun.recording import RankRecord, Recording

    recording = Recording(
        how="simulated",
        versions=versions(),
        world_size=request.world_size,
        job=request.to_json(),
        ranks=(RankRecord(rank=request.rank, phases=tuple(observer.records)),),
        log=tuple(simulation.log),
        rooms=tuple(device.room for device in simulation.tracker.devices),
        extra={"seconds": round(time.perf_counter() - started, 2)},
    )
    answer = recording.to_json()
    if simulation.tracker.events is not None:
        answer["events"] = simulation.tracker.events[: observer.num_events]
    answer["notes"] = [*request.notes, *simulation.notes]
    return answer


def main(requests_path: str, folder: str) -> int:
    """Runs every request in the file; the answers go to the folder."""
    listed = json.loads(Path(requests_path).read_text(encoding="utf-8"))
    requests = [Request.from_json(values) for values in listed]
    progress = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding="utf-8")

    def report(done: int, name: str) -> None:
        progress.write(replies.progress_line(done, name))

    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; the answer is a file
    if len(requests) == 1 or not hasattr(os, "fork"):
        for index, request in enumerate(requests):
            _answer(request, Path(folder, f"{index}.json"), report)
        return 0
    with contextlib.suppress(ZeroSizerError, ImportError):
        _import_everything(models=any(request.hf_config for request in requests))
    versions()  # read once
    keep_old_objects()  # forks share what was imported: collecting it would copy it into each
    for index, request in enumerate(requests):
        learned = Path(folder, f"{index}.learned")
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                _answer(request, Path(folder, f"{index}.json"), report)
                _hand_on(learned)
            os._exit(0)
        os.waitpid(child, 0)
        with contextlib.suppress(Exception):  # the next run can do without
            _take_over(learned)
    return 0


def _hand_on(path: Path) -> None:
    """Keep torch's answers to this fork for the next."""
    from zero_sizer.simulator import handed_on

    handed_on.write(path, _TAKEN)


def _take_over(path: Path) -> None:
    """Take the answers that the last fork kept."""
    from zero_sizer.simulator import handed_on

    handed_on.read(path)
    _TAKEN.update(handed_on.counted())


_TAKEN: dict[Any, int] = {}
"""By operator: how many answers there were before this run."""


def _import_everything(*, models: bool) -> None:
    """What every fork needs, transformers' models where ``models``; no engine is built."""
    from zero_sizer.simulator.simulation import Rank, simulated

    with simulated(Rank(world_size=2, local_world_size=2)):
        import deepspeed
        import torch
        import transformers
        from deepspeed.runtime.zero import stage3

        from zero_sizer.dryrun import build_model, training_loop
        from zero_sizer.simulator import batches, handed_on, modules

        del deepspeed, torch, transformers, stage3
        del build_model, training_loop, batches, handed_on, modules
        if models:  # the package alone imports next to nothing
            from transformers import PreTrainedModel
            from transformers.models.auto import modeling_auto

            from zero_sizer.simulator.operators import flash

            del PreTrainedModel, modeling_auto, flash
        # what any engine imports when it is built
        from deepspeed.module_inject import auto_ep_layer
        from deepspeed.runtime.zero.muon import muon_optimizer

        del auto_ep_layer, muon_optimizer


def _answer(request: Request, path: Path, report: Report) -> None:
    try:
        answer = record(request, report)
    except Exception as error:  # whatever DeepSpeed, torch or the user's model raise
        answer = replies.failure(error)
    replies.write(path, answer)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
