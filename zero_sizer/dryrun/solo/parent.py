"""Starting a solo rank in a process of its own, and reading what it measured."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.from_job import rank_task, refuse_packed
from zero_sizer.dryrun.keeping import Keeper, kept
from zero_sizer.dryrun.packages import require_packages, versions
from zero_sizer.dryrun.recording import Recording
from zero_sizer.dryrun.task import Task, require_rank
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import WitnessError
from zero_sizer.job.read import Job

DEFAULT_TIMEOUT = 600.0
_NOTES = (
    "peers are silent: a gathered tensor is this rank's partition repeated, a reduced gradient is "
    "its own",
)


def run(
    job: Job,
    *,
    rank: int = 0,
    steps: int = 2,
    layers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    progress: replies.Progress | None = None,
) -> Recording:
    """Runs rank ``rank`` of a job on this machine's accelerator (or its CPU), without the others.

    Args:
        job: as read; its cluster says how many ranks there are.
        rank: global rank to be.
        steps: optimizer steps; the first allocates the states, so 2 show the steady state.
        layers: keep only this many layers of the model.
        timeout: seconds until the run is stopped.
        progress: called with (phases done, phases in all, phase that ended).

    Raises:
        WitnessError: torch or deepspeed is missing, the engine failed, or it took too long.
        UnsupportedError: the job cannot be planned, the model not be cut, or it is quantized.
        InputError: there is no such rank.
    """
    require_packages(recent=True)
    refuse_packed(job)
    cluster = job.cluster
    require_rank(rank, cluster.world_size)
    cut = cut_job(job, layers)
    with kept("solo") as keeper:
        task = rank_task(cut, steps=steps, nvme_path=str(keeper.folder))
        question = {
            "task": task.to_json(),
            "rank": rank,
            "world_size": cluster.world_size,
            "local_world_size": cluster.gpus_per_node,
            "progress": str(keeper.folder / "progress"),
        }
        look = progress and replies.following(keeper.folder / "progress", task.num_phases, progress)
        found = _ask(question, keeper, timeout, look)
    about = {"name": cut.model.name, "layers": layers, "local_world_size": cluster.gpus_per_node}
    return _recording(found, task, about, cluster.world_size)


def _ask(
    question: dict[str, Any], keeper: Keeper, timeout: float, look: Callable[[], None] | None
) -> dict[str, Any]:
    folder = keeper.folder
    asked, reply, log = (folder / name for name in ("question.json", "reply.json", "log"))
    asked.write_text(json.dumps(question), encoding="utf-8")
    try:
        keeper.run_module("zero_sizer.dryrun.solo.child", str(asked), str(reply), log=log)
        code = keeper.wait(timeout, look)
    except subprocess.TimeoutExpired:
        raise WitnessError(f"the run took more than {timeout:g} s and was stopped") from None
    if not reply.exists():
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        last = next(filter(str.strip, reversed(text.splitlines())), "it said nothing")
        raise WitnessError(f"the solo run died (exit {code}): {last.strip()}")
    found = replies.read(reply)
    error = replies.error_in(found, question["task"]["config"])
    if error is not None:
        raise error
    return found


def _recording(
    found: dict[str, Any], task: Task, about: dict[str, Any], world_size: int
) -> Recording:
    record = replies.rank(found)
    return Recording(
        how="solo",
        versions=versions(),
        world_size=world_size,
        job={**task.to_json(), **about, "device": found["device"]},
        ranks=(record,),
        notes=(*task.notes, *_NOTES, *record.notes),
    )
