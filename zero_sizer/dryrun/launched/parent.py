"""The side of the launched dry run that asks: starts the ranks, reads what they wrote."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.from_job import rank_task, refuse_packed
from zero_sizer.dryrun.keeping import Keeper, kept
from zero_sizer.dryrun.launched import processes
from zero_sizer.dryrun.packages import require_packages, versions
from zero_sizer.dryrun.recording import RankRecord, Recording
from zero_sizer.dryrun.task import Task
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import WitnessError
from zero_sizer.job.read import Job

DEFAULT_TIMEOUT = 600.0
_MEMORY_LINE = re.compile(r"\bMA [\d.]+ GB|CPU Virtual Memory")
# What gloo and NCCL say in a rank whose peer is gone: never the cause.
_LOST_PEER = re.compile(r"closed by peer|reset by peer|gloo|NCCL|Broken pipe|Read timeout", re.I)
_ERROR_LINE = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b|Killed|Segmentation)")


def run(
    job: Job,
    *,
    ranks: int,
    steps: int = 2,
    layers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Recording:
    """Train the job's model for a few steps on ``ranks`` real ranks of this machine.

    Args:
        job: as read; its cluster does not matter here.
        ranks: processes; CPU ranks on gloo where the machine has no accelerator.
        steps: optimizer steps; the first allocates optimizer states, so 2 show the steady state.
        layers: keep only this many layers of the model.
        timeout: seconds until everything is stopped.

    Raises:
        WitnessError: torch or deepspeed is missing, a rank failed, or it took too long.
        UnsupportedError: the model cannot be cut, or is quantized.
    """
    require_packages(recent=True)
    refuse_packed(job)
    cut = cut_job(job, layers)
    with kept("launched") as keeper:
        task = rank_task(cut, steps=steps, nvme_path=str(keeper.folder / "swap"))
        (result,), log = _launch(keeper, [task], ranks=ranks, timeout=timeout, keep_going=False)
    if isinstance(result, str):
        raise WitnessError(result)
    return Recording(
        how="launched",
        versions=versions(),
        world_size=ranks,
        job={**task.to_json(), "name": cut.model.name, "layers": layers},
        ranks=tuple(result),
        log=tuple(log),
        notes=(*task.notes, *result[0].notes),
    )


def run_tasks(
    tasks: Sequence[Task], *, ranks: int, timeout: float = DEFAULT_TIMEOUT
) -> list[list[RankRecord] | str]:
    """Run many tasks one after the other in the same ranks.

    Returns:
        For each task the record of every rank, or the error that DeepSpeed refused it with.

    Raises:
        WitnessError: the ranks did not get through the list.
    """
    require_packages(recent=True)
    with kept("launched") as keeper:
        return _launch(keeper, tasks, ranks=ranks, timeout=timeout, keep_going=True)[0]


def _launch(
    keeper: Keeper, tasks: Sequence[Task], *, ranks: int, timeout: float, keep_going: bool
) -> tuple[list[list[RankRecord] | str], list[str]]:
    folder = keeper.folder
    for name in ("out", "swap"):
        (folder / name).mkdir()
    listing = folder / "tasks.json"
    listing.write_text(json.dumps([task.to_json() for task in tasks]), encoding="utf-8")
    arguments = ["--tasks", str(listing), "--out", str(folder / "out")]
    arguments += ["--keep-going"] if keep_going else []
    try:
        code = processes.launch(arguments, ranks=ranks, keeper=keeper, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise WitnessError(
            f"the run took more than {timeout:g} s and was stopped",
            remedy="give --timeout, fewer --layers or a shorter --seq-len",
        ) from None
    answers = [_answers(folder / "out", index) for index in range(len(tasks))]
    results = [_result(answer, ranks) for answer in answers]
    for answer, result in zip(answers, results, strict=True):
        if result is None:
            silent = set(range(ranks)) - {item["rank"] for item in answer}
            raise WitnessError(_why(folder, code, sorted(silent)))
    log = [line for line in _lines(_rank_log(folder, 0)) if _MEMORY_LINE.search(line)]
    return [result for result in results if result is not None], log


def _answers(folder: Path, index: int) -> list[dict[str, Any]]:
    """What the ranks wrote for one task, the earliest first."""
    files = sorted(folder.glob(f"{index}.*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [replies.read(path) for path in files]


def _result(answers: list[dict[str, Any]], ranks: int) -> list[RankRecord] | str | None:
    """Every rank's record, the error to blame, or None when the rank to blame left no answer."""
    errors = [answer for answer in answers if "error" in answer]
    own = [answer for answer in errors if not _LOST_PEER.search(answer["error"]["message"])]
    if own or (errors and len(answers) == ranks):
        first = (own or errors)[0]
        return f"rank {first['rank']} failed: {_one_line(first['error']['message'])}"
    if len(answers) < ranks:
        return None
    return sorted((replies.rank(answer) for answer in answers), key=lambda rank: rank.rank)


def _why(folder: Path, code: int, silent: list[int]) -> str:
    """The best single line about a run in which the ranks ``silent`` left no answer."""
    for rank in silent:
        errors = [line for line in _lines(_rank_log(folder, rank)) if _ERROR_LINE.match(line)]
        if errors:
            return f"rank {rank} failed: {_one_line(errors[-1])}"
    launcher = _lines(folder / "launcher.log")
    signalled = next((line for line in launcher if "return code = -" in line), "")
    if signalled:
        number = signalled.rpartition("-")[2]
        return f"a rank was killed by signal {number} (9: most likely out of host memory)"
    if silent and any((folder / "ranks").glob("*")):
        which = ", ".join(str(rank) for rank in silent)
        return f"rank {which} was killed: it ended without an error (out of host memory?)"
    last = next((line for line in reversed(launcher) if line), "it said nothing")
    return f"the launcher ended with code {code}: {_one_line(last)}"


def _rank_log(folder: Path, rank: int) -> Path:
    found = sorted((folder / "ranks").glob(f"*_rank{rank}.log"))
    return found[0] if found else folder / "none"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
