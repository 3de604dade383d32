"""The side of the launched dry run that asks: starts the ranks, reads what they wrote."""

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.from_job import rank_task, refuse_packed
from zero_sizer.dryrun.keeping import Keeper, kept
from zero_sizer.dryrun.launched import processes
from zero_sizer.dryrun.launched.hosts import Host, Hosts, meeting, reached
from zero_sizer.dryrun.packages import require_packages, versions
from zero_sizer.dryrun.recording import RankRecord, Recording
from zero_sizer.dryrun.task import Task
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import WitnessError, ZeroSizerError
from zero_sizer.job.read import Job
from zero_sizer.util.records import dataclass

DEFAULT_TIMEOUT = 600.0
_MEMORY_LINE = re.compile(r"\bMA [\d.]+ GB|CPU Virtual Memory")
# What gloo and NCCL say in a rank whose peer is gone: never the cause.
_LOST_PEER = re.compile(r"closed by peer|reset by peer|gloo|NCCL|Broken pipe|Read timeout", re.I)
_ERROR_LINE = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b|Killed|Segmentation)")


def run(  # noqa: PLR0913 (options of the command line)
    job: Job,
    *,
    ranks: int,
    steps: int = 2,
    layers: int | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    hosts: Hosts | None = None,
    progress: replies.Progress | None = None,
) -> Recording:
    """Train the job's model for a few steps on real ranks, of this machine or of several hosts.

    Args:
        job: as read; its cluster does not matter here.
        ranks: processes on this machine; CPU ranks on gloo where it has no accelerator.
        steps: optimizer steps; the first allocates optimizer states, so 2 show the steady state.
        layers: keep only this many layers of the model.
        timeout: seconds until everything is stopped.
        hosts: run on these, and on as many ranks as they have slots.
        progress: called with (phases done, phases in all, phase that ended) where rank 0 runs on
            this machine.

    Raises:
        WitnessError: torch or deepspeed is missing, a rank failed, a host was lost, or it took
            too long.
        UnsupportedError: the model cannot be cut, or is quantized.
        InputError: a host or the command that reaches it is none.
    """
    require_packages(recent=True)
    refuse_packed(job)
    cut = cut_job(job, layers)

    def task_in(folder: Path) -> Task:
        return rank_task(cut, steps=steps, nvme_path=str(folder / "swap"))

    task_in(Path())  # what cannot be run is said before a host is asked
    with kept("launched") as keeper, _hosts(keeper, ranks, hosts) as found:
        meet = None if hosts is None else meeting(found, hosts.master)
        tasks = {host.name: [task_in(host.keeper.folder)] for host in found}
        (task,) = tasks[found[0].name]
        run = _Run(keeper=keeper, hosts=found, meet=meet, timeout=timeout)
        look = progress and replies.following(
            keeper.folder / "out" / "progress", task.num_phases, progress
        )
        (result,), log = run.launch(tasks, keep_going=False, look=look)
    if isinstance(result, ZeroSizerError):
        raise result
    where = {} if hosts is None else {"hosts": dict(hosts.slots)}
    return Recording(
        how="launched",
        versions=versions(),
        world_size=len(result),
        job={**task.to_json(), "name": cut.model.name, "layers": layers, **where},
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
    with kept("launched") as keeper, _hosts(keeper, ranks, None) as hosts:
        run = _Run(keeper=keeper, hosts=hosts, meet=None, timeout=timeout)
        results = run.launch({"localhost": tasks}, keep_going=True)[0]
    return [found.message if isinstance(found, ZeroSizerError) else found for found in results]


@contextlib.contextmanager
def _hosts(keeper: Keeper, ranks: int, hosts: Hosts | None) -> Iterator[list[Host]]:
    """The hosts, or this machine as the only one, whose keeper is the one that asks."""
    if hosts is None:
        yield [Host(name="localhost", ranks=ranks, keeper=keeper)]
        return
    with reached(hosts) as found:
        yield found


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One launch of ranks.

    Attributes:
        keeper: of this machine; what the hosts wrote comes into its folder.
        hosts: where the ranks run, the first with rank 0.
        meet: address and port at which they meet; None: in a file.
        timeout: seconds.
    """

    keeper: Keeper
    hosts: Sequence[Host]
    meet: tuple[str, int] | None
    timeout: float

    def launch(
        self,
        tasks: Mapping[str, Sequence[Task]],
        *,
        keep_going: bool,
        look: Callable[[], None] | None = None,
    ) -> tuple[list[list[RankRecord] | ZeroSizerError], list[str]]:
        """Results of the tasks, which are listed by host, and DeepSpeed's lines about memory."""
        folder = self.keeper.folder
        for host in self.hosts:
            listing = [task.to_json() for task in tasks[host.name]]
            host.keeper.put("tasks.json", json.dumps(listing))
        arguments = ["--tasks", "{folder}/tasks.json", "--out", "{folder}/out"]
        arguments += ["--keep-going"] if keep_going else []
        try:
            code = processes.launch(
                self.hosts, arguments, meet=self.meet, timeout=self.timeout, meanwhile=look
            )
        except subprocess.TimeoutExpired:
            raise WitnessError(
                f"the run took more than {self.timeout:g} s and was stopped",
                remedy="give --timeout, fewer --layers or a shorter --seq-len",
            ) from None
        processes.gather(self.hosts, self.keeper)
        count = len(next(iter(tasks.values())))
        answers = [_answers(folder / "out", index) for index in range(count)]
        config = next(iter(tasks.values()))[0].config
        results = [self._result(answer, config) for answer in answers]
        for answer, result in zip(answers, results, strict=True):
            if result is None:
                silent = set(range(len(self._host_of))) - {item["rank"] for item in answer}
                raise WitnessError(self._why(code, sorted(silent)))
        log = [line for line in _lines(_rank_log(folder, 0)) if _MEMORY_LINE.search(line)]
        return [result for result in results if result is not None], log

    @property
    def _host_of(self) -> list[str]:
        """Each rank's host."""
        return [host.name for host in self.hosts for _ in range(host.ranks)]

    def _named(self, rank: int) -> str:
        return f"{rank} on {self._host_of[rank]}" if self.meet else str(rank)

    def _failed(self, rank: int, why: str) -> str:
        return f"rank {self._named(rank)} failed: {_one_line(why)}"

    def _result(
        self, answers: list[dict[str, Any]], config: Mapping[str, Any]
    ) -> list[RankRecord] | ZeroSizerError | None:
        """Every rank's record, the error to blame, or None where the rank to blame is silent."""
        ranks = len(self._host_of)
        errors = [answer for answer in answers if "error" in answer]
        own = [answer for answer in errors if not _LOST_PEER.search(answer["error"]["message"])]
        if own or (errors and len(answers) == ranks):
            first = (own or errors)[0]
            told = self._failed(first["rank"], first["error"]["message"])
            found = {**first["error"], "kind": "", "message": told}
            return replies.error_in({"error": found}, config)
        if len(answers) < ranks:
            return None
        return sorted((replies.rank(answer) for answer in answers), key=lambda rank: rank.rank)

    def _why(self, code: int, silent: list[int]) -> str:
        """The best single line about a run in which the ranks ``silent`` left no answer."""
        folder = self.keeper.folder
        for rank in silent:
            errors = [line for line in _lines(_rank_log(folder, rank)) if _ERROR_LINE.match(line)]
            if errors:
                return self._failed(rank, errors[-1])
        launcher = _lines(folder / "launcher.log")
        signalled = next((line for line in launcher if "return code = -" in line), "")
        if signalled:
            number = signalled.rpartition("-")[2]
            return f"a rank was killed by signal {number} (9: most likely out of host memory)"
        if silent and any((folder / "ranks").glob("*")):
            which = ", ".join(self._named(rank) for rank in silent)
            return f"rank {which} was killed: it ended without an error (out of host memory?)"
        last = next((line for line in reversed(launcher) if line), "it said nothing")
        return f"the launcher ended with code {code}: {_one_line(last)}"


def _answers(folder: Path, index: int) -> list[dict[str, Any]]:
    """What the ranks wrote for one task, the earliest first."""
    files = sorted(folder.glob(f"{index}.*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [replies.read(path) for path in files]


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
