"""The ledger beside the simulated engine, over hundreds of jobs: error per device and phase.

    python benchmarks/parity.py [--jobs N] [--seed S] [--kinds lora,hpz] [--only TEXT] [--write]
    python benchmarks/parity.py --case 1/17/lora      # one of them again

Every job is a full-width model cut to 2 to 4 blocks, run by the real engine on simulated GPUs for
two optimizer steps: every rank at stages 1 and 2, and at the others in small worlds; else the first
two, the last and one more. What ``check`` answers is compared with the rank that is highest in each
phase of the last step, and in the whole run; on the host with the sum over a node's ranks. The
workspace that cuBLAS takes is left out, which fake tensors never ask for.

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
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from parity_jobs import KINDS, Case, case_of, cases, draw  # noqa: F401

from zero_sizer.errors import WitnessError, ZeroSizerError
from zero_sizer.features import ENTRIES
from zero_sizer.findings import Severity
from zero_sizer.ledger import evaluate
from zero_sizer.moments import Phase
from zero_sizer.peak import phase_peaks, totals
from zero_sizer.plan import Device, Plan
from zero_sizer.sizing import size
from zero_sizer.witnesses.simulated import run_requests
from zero_sizer.witnesses.simulated.parent import request_of

LIMITS = Path(__file__).parents[1] / "docs" / "limits.md"
START, END = "<!-- parity:start -->", "<!-- parity:end -->"
BATCH = 40  # ranks that a child process runs in its forks
NOT_SIMULATED = {"cublas_workspace"}  # a kernel library's, which fake tensors never call
DEVICES = (Device.GPU, Device.HOST)
WHOLE = "whole run"
SMALL = 2**20  # below it no error is counted
BELOW = -0.005  # so far below the engine a job is counted

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
    return run_requests([request_of(case.job, rank=0, steps=2) for case in found])


def compare(case: Case, recording: Any) -> Iterator[tuple[str, str, int, int]]:
    """(device, phase, predicted, simulated) of the phases of the last optimizer step, at rank 0."""
    allocations = evaluate(ENTRIES, plan_of(case), explain=False)
    moments = totals([a for a in allocations if a.name not in NOT_SIMULATED], 1)
    found = simulated_peaks(recording.ranks[0])
    for device in DEVICES:
        predicted = phase_peaks(moments[device])
        for phase in Phase:
            yield device.value, phase.value, predicted[phase], found[device.value][phase.value]


def simulated_peaks(rank: Any) -> Peaks:
    """Highest bytes of each phase of the last optimizer step, and of the whole run."""
    last = max(phase.step for phase in rank.phases)
    boundary = max(phase.micro_step for phase in rank.phases)
    found: Peaks = {}
    for device in (d.value for d in DEVICES):
        peaks = {
            phase.value: max(
                (
                    record.device[device].get("max_allocated", 0)
                    for record in rank.phases
                    if record.name == phase.value
                    and (phase is Phase.INIT or record.step == last)
                    and (phase is not Phase.STEP or record.micro_step == boundary)
                ),
                default=0,
            )
            for phase in Phase
        }
        everything = (record.device[device].get("max_allocated", 0) for record in rank.phases)
        found[device] = {**peaks, WHOLE: max(everything, default=0)}
    return found


def predicted_peaks(case: Case) -> tuple[Peaks, list[str]]:
    """``check``'s answer without what is not simulated, and the codes of its findings."""
    sizing = size(case.job)
    left_out = totals(
        [a for a in sizing.allocations if a.name in NOT_SIMULATED], case.job.cluster.gpus_per_node
    )
    found: Peaks = {}
    for device in DEVICES:
        moments = sizing.moments[device]
        rest = {moment: size - left_out[device][moment] for moment, size in moments.items()}
        peaks = {phase.value: size for phase, size in phase_peaks(rest).items()}
        found[device.value] = {**peaks, WHOLE: max(peaks.values())}
    codes = [
        f.code if f.severity is not Severity.ERROR else f"error: {f.code}" for f in sizing.findings
    ]
    return found, sorted(set(codes))


def ranks_of(case: Case) -> list[int]:
    """The ranks to simulate: all that may differ."""
    world = case.job.cluster.world_size
    stage = case.job.document.get("zero_optimization.stage") or 0
    if stage in (1, 2) or world <= 4:
        return list(range(world))
    other = 2 + int(hashlib.sha256(case.name.encode()).hexdigest(), 16) % (world - 3)
    return [0, 1, other, world - 1]


def highest(case: Case, by_rank: Mapping[str, Peaks]) -> Peaks:
    """The highest rank on the GPU; the node whose ranks together hold most on the host.

    A rank that was not simulated is taken for the one simulated from the middle.
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


class Log:
    """One JSON object a job; what it holds already is not simulated again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.known = {entry["id"]: entry for entry in map(json.loads, lines)}

    def recall(self, case: Case, requests: list[Any]) -> dict[str, Any] | None:
        """What was simulated for the same requests."""
        entry = self.known.get(case.id)
        if entry is None or entry["requests"] != digest(requests):
            return None
        return {key: entry[key] for key in ("simulated", "refused") if key in entry}

    def add(self, entry: dict[str, Any]) -> None:
        """Append a job."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def digest(requests: Iterable[Any]) -> str:
    """Tells requests apart."""
    text = json.dumps([request.to_json() for request in requests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def entry_of(case: Case, requests: list[Any], answer: dict[str, Any]) -> dict[str, Any]:
    """A job's line of the log."""
    predicted, codes = predicted_peaks(case)
    entry = {"id": case.id, "name": case.name, "requests": digest(requests), "findings": codes}
    entry |= {**answer, "predicted": predicted}
    if "simulated" in answer:
        entry["highest"] = highest(case, answer["simulated"])
    return entry


def asked(drawn: Iterable[Case]) -> Iterator[tuple[Case, list[Any]]]:
    """Jobs with the requests of their ranks; those nobody can simulate are left out."""
    for case in drawn:
        try:
            yield case, [request_of(case.job, rank=rank, steps=2) for rank in ranks_of(case)]
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


Errors = dict[tuple[str, str], list[tuple[float, str]]]
"""(device, phase) -> error and job."""


def errors_of(entries: Iterable[dict[str, Any]]) -> Errors:
    """The errors of every job, per device and phase."""
    errors: Errors = defaultdict(list)
    for entry in entries:
        for device, peaks in entry["highest"].items():
            for phase, simulated in peaks.items():
                if simulated > SMALL:
                    error = entry["predicted"][device][phase] / simulated - 1
                    errors[device, phase].append((error, f"{entry['id']} {entry['name']}"))
    return errors


def render(entries: list[dict[str, Any]], refused: int, seed: int) -> str:
    """The Markdown table."""
    errors = errors_of(entries)
    ranks = sum(len(entry["simulated"]) for entry in entries)
    lines = [
        f"{len(entries)} jobs, {ranks:,} simulated ranks (seed {seed}; {refused} that the engine "
        "or the model refuses were drawn again): what `check` answers beside the highest of the "
        "ranks, 1 to 16 of them, full-width models cut to 2 to 4 blocks.",
        "",
        "| device | phase | jobs | median error | 95th percentile | worst | over 0.5 % below |",
        "|---|---|---|---|---|---|---|",
    ]
    for (device, phase), found in sorted(errors.items()):
        sizes = sorted(abs(error) for error, _ in found)
        worst = max(found, key=lambda e: abs(e[0]))[0]
        cut = sizes[min(int(0.95 * len(sizes)), len(sizes) - 1)]
        below = sum(error < BELOW for error, _ in found)
        lines.append(
            f"| {device} | {phase} | {len(sizes)} | {statistics.median(sizes):.2%} | {cut:.2%} "
            f"| {worst:+.2%} | {below} |"
        )
    return "\n".join(lines)


def by_kind(entries: list[dict[str, Any]]) -> Iterator[str]:
    """For each kind of job: how many are off in the whole run, and the worst of them."""
    for kind in KINDS:
        found = [e for e in entries if e["id"].endswith(f"/{kind}")]
        for (device, phase), errors in sorted(errors_of(found).items()):
            if phase != WHOLE:
                continue
            off = sorted((e for e in errors if abs(e[0]) > -BELOW), key=lambda e: -abs(e[0]))
            yield f"{kind} {device}: {len(off)} of {len(errors)} more than 0.5 % off"
            yield from (f"    {error:+.2%} {name}" for error, name in off[:5])


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
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # nobody's own traced profiles
    drawn = cases(arguments.seed, arguments.kinds.split(","))
    drawn = (case for case in drawn if arguments.only in case.name)
    if arguments.case:
        drawn = map(case_of, arguments.case)
        arguments.jobs = len(arguments.case)
    entries, refused = run(arguments.jobs, drawn, Log(arguments.log))
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
