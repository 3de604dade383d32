"""The ledger beside the simulated engine, over hundreds of jobs: error per device and phase.

    python benchmarks/parity.py [--jobs N] [--seed S] [--kinds lora,hpz] [--only TEXT] [--write]
    python benchmarks/parity.py --case 1/17/lora      # one of them again

Every job is a full-width model cut to 2 to 4 blocks, run by the real engine on simulated GPUs for
two optimizer steps (Muon three): every rank at stages 1 and 2, and at the others in small worlds;
else the first two, the last and one more. What ``check`` answers is compared with the rank that is
highest in each phase of any step (or the one that the answer is about), and in the whole run; on
the host with the sum over a node's ranks. The workspace that cuBLAS takes is left out, which fake
tensors never ask for.

Jobs are drawn at random, the same ones for the same seed; one that DeepSpeed or the model refuses
is drawn again. Each goes to a log (``--log``) with both sides per rank and phase; a job that the
log has already is not simulated again, only predicted. ``--write`` puts the table into
docs/limits.md.
"""

import argparse
import hashlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from parity_jobs import KINDS, Case, case_of, cases, draw  # noqa: F401
from parity_report import BELOW, DEVICES, WHOLE, Log, by_kind, digest, errors_of, render

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.errors import WitnessError, ZeroSizerError
from zero_sizer.findings import Severity
from zero_sizer.ledger.entries import ENTRIES
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import STEPPING, Moment, Phase
from zero_sizer.ledger.peak import phase_peaks, totals
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import size

LIMITS = Path(__file__).parents[1] / "docs" / "limits.md"
START, END = "<!-- parity:start -->", "<!-- parity:end -->"
BATCH = 24  # ranks that a child process runs in its forks
NOT_SIMULATED = {"cublas_workspace"}  # a kernel library's, which fake tensors never call

Peaks = dict[str, dict[str, int]]
"""device -> phase or whole run -> bytes."""


def plan_of(case: Case) -> Plan:
    """The case's plan at rank 0."""
    plan = size(case.job).plan
    if plan is None:
        raise ValueError(f"no plan for {case.name}")
    return replace(plan, rank=0)


def run_batch(found: list[Case]) -> list[Any]:
    """Simulate rank 0 of jobs, one after the other in forks of one process."""
    return run_requests([request_of(case.job, rank=0, steps=steps_of(case)) for case in found])


def steps_of(case: Case) -> int:
    """Optimizer steps to run: the cache of Muon's gathers is full in the third."""
    return 3 if case.job.document.get("optimizer.type") == "Muon" else 2


def compare(case: Case, recording: Any) -> Iterator[tuple[str, str, int, int]]:
    """(device, phase, predicted, simulated) of the phases, at rank 0."""
    predicted, simulated = peaks_at(plan_of(case)), simulated_peaks(recording.ranks[0])
    for device in DEVICES:
        for phase in STEPPING:
            name = phase.value
            yield device.value, name, predicted[device.value][name], simulated[device.value][name]


def peaks_at(plan: Plan) -> Peaks:
    """What the ledger says of the plan's own rank."""
    allocations = evaluate(ENTRIES, plan, explain=False)
    moments = totals([a for a in allocations if a.name not in NOT_SIMULATED], 1)
    return {device.value: _by_phase(moments[device]) for device in DEVICES}


def _by_phase(moments: Mapping[Moment, int]) -> dict[str, int]:
    peaks = {phase.value: size for phase, size in phase_peaks(moments).items() if phase in STEPPING}
    return {**peaks, WHOLE: max(peaks.values())}


def simulated_peaks(rank: Any) -> Peaks:
    """Highest bytes of each phase of any step, and of the whole run.

    A step is that of the last micro step; ``engine.step`` does nothing in the others.
    """
    boundary = max(phase.micro_step for phase in rank.phases)
    found: Peaks = {}
    for device in (d.value for d in DEVICES):
        peaks = {phase.value: 0 for phase in STEPPING}
        for record in rank.phases:
            steps = record.name != Phase.STEP.value or record.micro_step == boundary
            if record.name in peaks and steps:
                held = record.device[device].get("max_allocated", 0)
                peaks[record.name] = max(peaks[record.name], held)
        everything = (record.device[device].get("max_allocated", 0) for record in rank.phases)
        found[device] = {**peaks, WHOLE: max(everything, default=0)}
    return found


class Answer(NamedTuple):
    """``check``'s answer without what is not simulated.

    Attributes:
        peaks: of the GPU of one rank, of the host of one node.
        rank: the one that is said to need most, None where it is none in particular.
        codes: of its findings.
    """

    peaks: Peaks
    rank: int | None
    codes: list[str]


def answer_of(case: Case) -> Answer:
    """What ``check`` says of a job."""
    sizing = size(case.job)
    left_out = totals(
        [a for a in sizing.allocations if a.name in NOT_SIMULATED], case.job.cluster.gpus_per_node
    )
    found: Peaks = {}
    for device in DEVICES:
        moments = sizing.moments[device]
        rest = {moment: size - left_out[device][moment] for moment, size in moments.items()}
        found[device.value] = _by_phase(rest)
    codes = [
        f.code if f.severity is not Severity.ERROR else f"error: {f.code}" for f in sizing.findings
    ]
    return Answer(found, sizing.plan.rank if sizing.plan else None, sorted(set(codes)))


def ranks_of(case: Case) -> list[int]:
    """The ranks to simulate: all that may differ."""
    world = case.job.cluster.world_size
    stage = case.job.document.get("zero_optimization.stage") or 0
    if stage in (1, 2) or world <= 4:
        return list(range(world))
    other = 2 + int(hashlib.sha256(case.name.encode()).hexdigest(), 16) % (world - 3)
    return [0, 1, other, world - 1]  # of ZeRO-3's ranks the first and the last can differ


def highest(case: Case, by_rank: Mapping[str, Peaks], answered: int | None = None) -> Peaks:
    """The highest rank on the GPU; the node whose ranks together hold most on the host.

    A rank that was not simulated is taken for the one simulated from the middle. Phases are those
    of the rank that the answer is about, where it is about one; the whole run never is.
    """
    world, local = case.job.cluster.world_size, case.job.cluster.gpus_per_node
    middle = by_rank.get(str(ranks_of(case)[-2 if world > 2 else 0]), {})
    everyone = [by_rank.get(str(rank), middle) for rank in range(world)]
    found: Peaks = {}
    for device in (d.value for d in DEVICES):
        together = 1 if device == "gpu" else local
        nodes = [everyone[i : i + together] for i in range(0, world, together)]
        found[device] = {
            phase: max(sum(rank[device][phase] for rank in node) for node in nodes)
            for phase in everyone[0][device]
        }
    if answered is not None:
        found["gpu"] = {**everyone[answered]["gpu"], WHOLE: found["gpu"][WHOLE]}
    return found


def simulate(found: Sequence[tuple[Case, list[Any]]]) -> Iterator[dict[str, Any]]:
    """Per job: the peaks of each rank, or what the engine said."""
    flat = [request for _, requests in found for request in requests]
    try:
        recordings = iter(run_requests(flat))
    except WitnessError as error:  # the process died, and with it what it ran
        if len(found) == 1:
            yield {"refused": f"died: {error}"}
        else:
            for one in found:
                yield from simulate([one])
        return
    for case, requests in found:
        answers = list(itertools.islice(recordings, len(requests)))
        refused = [answer for answer in answers if isinstance(answer, ZeroSizerError)]
        if refused:
            yield {"refused": str(refused[0])}
            continue
        ranks = (str(rank) for rank in ranks_of(case))
        yield {
            "simulated": {
                rank: simulated_peaks(recording.ranks[0])
                for rank, recording in zip(ranks, answers, strict=True)
            }
        }


def entry_of(case: Case, requests: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
    """A job's line of the log."""
    said = answer_of(case)
    entry = {"id": case.id, "name": case.name, "requests": digest(requests)}
    entry |= {"findings": said.codes, "rank": said.rank, **answer, "predicted": said.peaks}
    if "simulated" in answer:
        entry["highest"] = highest(case, answer["simulated"], said.rank)
        if any(abs(error) > -BELOW for _, _, error in errors_of(entry)):
            entry["rank by rank"] = worst_at_ranks(case, answer["simulated"])
    return entry


def worst_at_ranks(case: Case, by_rank: Mapping[str, Peaks]) -> dict[str, float]:
    """The worst error of any phase where the ledger is asked for each rank by its number.

    Next to nothing: the entries are right, and only what is said of all ranks together is off.
    """
    worst: dict[str, float] = {device.value: 0.0 for device in DEVICES}
    for rank, simulated in by_rank.items():
        predicted = peaks_at(replace(plan_of(case), rank=int(rank)))
        for device, _, error in errors_of({"predicted": predicted, "highest": simulated}):
            worst[device] = max(worst[device], error, key=abs)
    return worst


def asked(drawn: Iterable[Case]) -> Iterator[tuple[Case, list[Any]]]:
    """Jobs with the requests of their ranks; those nobody can simulate are left out.

    So are activations in closed form, whose error ``check`` states.
    """
    for case in drawn:
        try:
            if "activations-in-closed-form" in answer_of(case).codes:
                continue
            steps = steps_of(case)
            yield case, [request_of(case.job, rank=rank, steps=steps) for rank in ranks_of(case)]
        except ZeroSizerError as error:
            print(f"not simulated: {case.id} {case.name}: {error}", file=sys.stderr)


def run(wanted: int, drawn: Iterator[Case], log: Log) -> tuple[list[dict[str, Any]], int]:
    """The entries of ``wanted`` jobs that the engine took, and how many it refused."""
    entries: list[dict[str, Any]] = []
    refused, started = 0, time.perf_counter()
    source = asked(drawn)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while len(entries) < wanted:
            batches = list(_batches(list(itertools.islice(source, wanted - len(entries))), log))
            if not batches:
                break
            for batch, answers in zip(batches, pool.map(_answers(log), batches), strict=True):
                for (case, requests), answer in zip(batch, answers, strict=True):
                    entry = entry_of(case, requests, answer)
                    if log.recall(case, requests) is None:
                        log.add(entry)
                    _tell(entry)
                    refused += "refused" in entry
                    entries += [] if "refused" in entry else [entry]
                passed = time.perf_counter() - started
                print(f"{len(entries)} jobs, {passed:.0f} s", file=sys.stderr, flush=True)
    return entries, refused


def _answers(log: Log) -> Any:
    def answers(batch: list[tuple[Case, list[Any]]]) -> list[dict[str, Any]]:
        known = [log.recall(case, requests) for case, requests in batch]
        new = simulate([job for job, old in zip(batch, known, strict=True) if old is None])
        return [old if old is not None else next(new) for old in known]

    return answers


def _batches(found: list[Any], log: Log) -> Iterator[list[Any]]:
    batch: list[Any] = []
    ranks = 0
    for case, requests in found:
        batch.append((case, requests))
        ranks += 0 if log.recall(case, requests) else len(requests)
        if ranks >= BATCH:
            yield batch
            batch, ranks = [], 0
    if batch:
        yield batch


def _tell(entry: dict[str, Any]) -> None:
    """A job on which ``check`` and the engine disagree whether it runs at all."""
    errors = [code for code in entry["findings"] if code.startswith("error: ")]
    if "refused" in entry and not errors:
        print(f"runs by check, refused: {entry['id']} {entry['name']}: {entry['refused']}")
    elif errors and "refused" not in entry:
        print(f"runs, refused by check: {entry['id']} {entry['name']}: {', '.join(errors)}")


def main() -> int:
    """Run the jobs and print (or write) the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}")
    parser.add_argument("--only", default="", help="jobs whose name contains this")
    parser.add_argument("--case", action="append", default=[], help="this job (several times)")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "parity.jsonl")
    parser.add_argument("--logged", action="store_true", help="the jobs of the log again")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # nobody's own traced profiles
    drawn = cases(arguments.seed, arguments.kinds.split(","))
    drawn = (case for case in drawn if arguments.only in case.name)
    log = Log(arguments.log)
    chosen = list(log.known) if arguments.logged else arguments.case
    if chosen:
        drawn = (case for case in map(case_of, chosen) if arguments.only in case.name)
        arguments.jobs = len(chosen)
    entries, refused = run(arguments.jobs, drawn, log)
    if arguments.case:
        print(json.dumps(entries, indent=1))
    table = render(entries, refused, arguments.seed)
    print("\n".join((table, "", *by_kind(entries), "", f"log: {arguments.log}")))
    if arguments.write:
        text = LIMITS.read_text(encoding="utf-8")
        before, after = text.index(START) + len(START), text.index(END)
        LIMITS.write_text(f"{text[:before]}\n{table}\n{text[after:]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
