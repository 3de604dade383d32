"""Starting a simulated rank in a process of its own, and reading what it found."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.from_job import rank_task
from zero_sizer.dryrun.keeping import Keeper, kept
from zero_sizer.dryrun.packages import require_packages
from zero_sizer.dryrun.recording import Recording
from zero_sizer.dryrun.replies import Progress
from zero_sizer.dryrun.simulated.outputs import NOTHING, Outputs
from zero_sizer.dryrun.simulated.request import Request
from zero_sizer.dryrun.task import require_rank
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import UnsupportedError, WitnessError, ZeroSizerError
from zero_sizer.hardware import outside
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job.read import Job
from zero_sizer.simulator.device import NO_LIMIT


def run(
    job: Job,
    *,
    rank: int = 0,
    steps: int = 2,
    layers: int | None = None,
    outputs: Outputs = NOTHING,
    progress: Progress | None = None,
) -> Recording:
    """Runs rank ``rank`` of a job on a simulated GPU.

    Args:
        job: as read; its cluster says how many ranks there are.
        rank: global rank to be.
        steps: optimizer steps; the first allocates the states, so 2 show the steady state.
        layers: keep only this many layers of the model.
        outputs: the trace and snapshot to write.
        progress: called with (phases done, phases in all, phase that ended).

    Raises:
        WitnessError: a package is missing, or the engine failed; the message is DeepSpeed's.
        UnsupportedError: the model or an option cannot be simulated.
        InputError: there is no such rank, or a file cannot be written.
    """
    require_packages()
    outputs.check()
    cut = cut_job(job, layers)
    with _kept() as keeper:
        request = request_of(cut, rank=rank, steps=steps, nvme_path=str(keeper.folder))
        request = replace(request, keep_events=bool(outputs))
        found = _answer(keeper, request, progress)
    if outputs:
        outputs.write(found["events"])
    recording = replies.recording(found)
    return replace(recording, job={**recording.job, "name": cut.model.name, "layers": layers})


def request_of(job: Job, *, rank: int, steps: int, nvme_path: str | None = None) -> Request:
    """Request that a child is asked for a job.

    Raises:
        InputError: there is no such rank.
        UnsupportedError: the job cannot be planned.
    """
    cluster = job.cluster
    require_rank(rank, cluster.world_size)
    if (job.workload.sequences, job.workload.attention) == ("padded", "flash"):
        raise UnsupportedError(
            "padded sequences with flash attention are not simulated: what is copied depends on "
            "the padding",
            remedy="pack them, or take --attention sdpa",
        )
    task = rank_task(job, steps=steps, nvme_path=nvme_path)
    others = outside.of_cluster(cluster)
    return Request(
        **vars(task),
        rank=rank,
        world_size=cluster.world_size,
        local_world_size=cluster.gpus_per_node,
        gpu=cluster.gpu.name if cluster.gpu is not None else "",
        gpu_bytes=cluster.gpu_memory or NO_LIMIT,
        outside_bytes=(others.low, others.high),
        blas_bytes=blas_bytes(cluster.gpu) if cluster.gpu is not None else 0,
        host_bytes=cluster.host_memory or 0,
    )


def run_request(request: Request, *, progress: Progress | None = None) -> Recording:
    """Runs one rank; see ``run``."""
    return replies.recording(answer(request, progress=progress))


def run_requests(requests: Sequence[Request]) -> list[Recording | ZeroSizerError]:
    """Runs many requests one after the other; an error stands where a recording would.

    Raises:
        WitnessError: the process died.
    """
    return [
        replies.error_in(found, request.config) or replies.recording(found)
        for request, found in zip(requests, answers(requests), strict=True)
    ]


def answers(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Runs many requests; answers in the child's JSON (see ``answer``).

    Raises:
        WitnessError: the process died.
    """
    with _kept() as keeper:
        return _ask(keeper, requests, None)


def answer(request: Request, *, progress: Progress | None = None) -> dict[str, Any]:
    """The child's JSON: a recording and, where asked for, its ``events``.

    Raises:
        ZeroSizerError: what the child reported.
    """
    with _kept() as keeper:
        return _answer(keeper, request, progress)


def _kept() -> AbstractContextManager[Keeper]:
    return kept("simulated", noise=subprocess.PIPE)


def _answer(keeper: Keeper, request: Request, progress: Progress | None) -> dict[str, Any]:
    (found,) = _ask(keeper, [request], progress)
    error = replies.error_in(found, request.config)
    if error is not None:
        raise error
    return found


def _ask(
    keeper: Keeper, requests: Sequence[Request], progress: Progress | None
) -> list[dict[str, Any]]:
    folder = keeper.folder
    question = folder / "requests.json"
    question.write_text(json.dumps([r.to_json() for r in requests]), encoding="utf-8")
    total = sum(request.num_phases for request in requests)
    code, noise = _spawn(keeper, [str(question), str(folder)], total, progress)
    found = [folder / f"{index}.json" for index in range(len(requests))]
    if not all(reply.exists() for reply in found):
        raise WitnessError(f"the simulated run died (exit {code}): {_last_line(noise)}")
    return [replies.read(reply) for reply in found]


def _spawn(
    keeper: Keeper, arguments: Sequence[str], total: int, progress: Progress | None
) -> tuple[int, list[str]]:
    keeper.run_module("zero_sizer.dryrun.simulated.child", *arguments)
    noise: list[str] = []
    for line in keeper.noise:
        event = replies.progress_in(line)
        if event is None:
            noise.append(line)
        elif progress is not None:
            progress(event[0], total, event[1])
    return keeper.wait(), noise


def _last_line(noise: list[str]) -> str:
    return next((line.strip() for line in reversed(noise) if line.strip()), "it said nothing")
