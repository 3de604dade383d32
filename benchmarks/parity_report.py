"""What comes of a parity run: a log of one JSON object a job, a table, what is off by kind."""

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from parity_jobs import KINDS, Case

from zero_sizer.hardware.device import Device

DEVICES = (Device.GPU, Device.HOST)
WHOLE = "whole run"
SMALL = 2**22  # a rank's bytes below which no error is counted
BELOW = -0.005  # so far below the engine a job is counted
SHOWN = 8  # jobs of a kind


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
        self.known[entry["id"]] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def digest(requests: Iterable[Any]) -> str:
    """Tells requests apart."""
    text = json.dumps([request.to_json() for request in requests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Errors = dict[tuple[str, str], list[tuple[float, dict[str, Any]]]]
"""(device, phase) -> error and job."""


def errors_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(device, phase, error) of one job, where there is enough to be off by."""
    for device, peaks in entry["highest"].items():
        for phase, simulated in peaks.items():
            if simulated > SMALL:
                yield device, phase, entry["predicted"][device][phase] / simulated - 1


def all_errors(entries: Iterable[dict[str, Any]]) -> Errors:
    """The errors of every job, per device and phase."""
    errors: Errors = defaultdict(list)
    for entry in entries:
        for device, phase, error in errors_of(entry):
            errors[device, phase].append((error, entry))
    return errors


def render(entries: list[dict[str, Any]], refused: int, seed: int) -> str:
    """The Markdown table."""
    errors = all_errors(entries)
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
    """For each kind of job: how many are off in the whole run, and the worst of any phase."""
    for kind in KINDS:
        found = [e for e in entries if e["id"].endswith(f"/{kind}")]
        if not found:
            continue
        whole = {d: _off(all_errors(found)[d.value, WHOLE]) for d in DEVICES}
        said = ", ".join(f"{len(off)} {device.value}" for device, off in whole.items())
        yield f"{kind}: of {len(found)} jobs more than 0.5 % off in the whole run: {said}"
        shown: set[str] = set()
        everything = [(*key, e) for key, errors in all_errors(found).items() for e in _off(errors)]
        for device, phase, (error, entry) in sorted(everything, key=lambda e: -abs(e[2][0])):
            if entry["id"] not in shown and len(shown) < SHOWN:
                shown.add(entry["id"])
                ranks = entry["rank by rank"][device]
                yield f"    {error:+.2%} {device} {phase}, rank by rank {ranks:+.2%}: " + (
                    f"--case {entry['id']} {entry['name']}"
                )


def _off(errors: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, dict[str, Any]]]:
    return [error for error in errors if abs(error[0]) > -BELOW]
