"""Published runs that ended, one way or the other, beside the verdict that ``check`` gives them.

A row is a job file: what a person would have asked before the launch. Rows that were measured on a
GPU of a known size are taken from ``published``, and throughput tables are proofs that a job fits.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from support import published

from zero_sizer.findings import Direction
from zero_sizer.job import read as job
from zero_sizer.sizing import Sizing, Verdict, size

OUTCOMES = published.DATA / "published_outcomes.json"
BENCHMARK = published.DATA.parent.parent / "benchmarks" / "throughput.py"
RAN = "ran"
MEASURED_RUNS = ("peak", "device_used", "outcome")  # of a job that trained, or died of memory


@dataclass(frozen=True)
class Outcome:
    """A run, what became of it and how its job is read."""

    id: str
    happened: str
    not_modelled: tuple[str, ...]
    answer: Any = field(repr=False)

    @property
    def ran(self) -> bool:
        return self.happened == RAN

    def sizing(self) -> Sizing:
        return _asked(self)


@cache
def _asked(outcome: Outcome) -> Sizing:
    return outcome.answer()


@cache
def read() -> dict[str, Any]:
    return json.loads(OUTCOMES.read_text())


@cache
def outcomes() -> tuple[Outcome, ...]:
    """Every published run whose configuration is known well enough to ask for a verdict."""
    return (*_of_job_files(), *_of_measurements(), *_of_throughput())


def _of_job_files() -> Iterator[Outcome]:
    for group in read()["jobs"]:
        for row in group["rows"]:
            fields = _laid_over(group["job"], row.get("job", {}))
            yield Outcome(
                row["id"],
                row["happened"],
                tuple(group.get("not_modelled", ())),
                lambda fields=fields: _sizing(fields),
            )


def _laid_over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{k: _laid_over(below.get(k), v) for k, v in above.items()}}


def _sizing(fields: dict[str, Any]) -> Sizing:
    """What ``check`` answers on the job file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.yaml"
        if isinstance(fields["model"], dict):
            config = Path(folder) / "model" / "config.json"
            config.parent.mkdir()
            config.write_text(json.dumps(fields["model"]))
            fields = {**fields, "model": str(config)}
        path.write_text(json.dumps(fields))
        return size(job.read(str(path)))


def _of_measurements() -> Iterator[Outcome]:
    for row in published.rows():
        on_a_gpu = {"gpu", "gpu_memory"} & row.job.get("cluster", {}).keys()
        if not on_a_gpu or "moment" in row.fields or row.fields["quantity"] not in MEASURED_RUNS:
            continue
        happened = {"fits": RAN, "oom": "out of memory"}[row.fields.get("outcome", "fits")]
        yield Outcome(row.id, happened, (), lambda row=row: published.sizing_of(row))


def _of_throughput() -> Iterator[Outcome]:
    bench = _benchmark()
    facts = bench.read()
    for row in facts["rows"]:
        stated = bench.job_of(row, facts)
        fields = {
            "model": mpt(row, facts),
            "deepspeed": dict(stated.document.values),
            "cluster": {
                "nodes": stated.cluster.nodes,
                "gpus_per_node": stated.cluster.gpus_per_node,
                "gpu": stated.cluster.gpu.name,
            },
            "workload": {
                "seq_len": row["seq_len"],
                "checkpointing": row["activation_checkpointing"],
                "attention": "flash",
                "loss": stated.workload.loss,
            },
        }
        yield Outcome(row["id"], RAN, (), lambda fields=fields: _sizing(fields))


def mpt(row: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The GPT-2 that an MPT of llm-foundry is: learned positions, tied head, one GELU, no dropout.

    llmfoundry/models/mpt/modeling_mpt.py; transformers' own MPT has no learned positions.
    """
    hidden, layers, heads = facts["shapes"][row["model"]]
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": hidden,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": row["seq_len"],
        "vocab_size": facts["vocab"],
        "activation_function": "gelu",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "torch_dtype": "bfloat16",
    }


@cache
def _benchmark() -> Any:
    """benchmarks/throughput.py as a module."""
    spec = importlib.util.spec_from_file_location("throughput_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


DECISIVE = ("assumed-seq-len", "assumed-micro-batch", "assumed-checkpointing")
"""Facts without which no figure stands, whatever the reason that is printed first."""


def missing_facts(sizing: Sizing) -> list[str]:
    """What the answer says nobody stated, where that is why it does not tell."""
    codes = {reason.code for reason in getattr(sizing, "reasons", sizing.findings)}
    named = {c for c in codes if c.startswith("assumed-") or c.endswith("-unknown")}
    return sorted(named | {f.code for f in sizing.findings if f.code in DECISIVE})


def directions(sizing: Sizing) -> list[Direction]:
    """In which directions the answer says that it may be off."""
    return [finding.direction for finding in sizing.findings if finding.direction is not None]


def is_settled(sizing: Sizing) -> bool:
    """Whether a run that fits is called so, or the answer names the fact that it lacks."""
    return sizing.verdict is Verdict.FITS or (
        sizing.verdict is Verdict.UNCERTAIN and bool(missing_facts(sizing))
    )


def table(rows: list[Outcome]) -> str:
    """Verdict beside what happened, and why nobody can tell, for a reader."""
    lines = [f"{'':56} {'happened':>13} {'verdict':>13} {'GPU peak GiB':>13}  why"]
    for row in rows:
        sizing = row.sizing()
        peak = sizing.peaks[published.Device.GPU].num_bytes / published.GIB
        why = ", ".join(missing_facts(sizing)) or ", ".join(row.not_modelled)
        cells = f"{row.happened:>13} {sizing.verdict.value:>13} {peak:13.2f}"
        lines.append(f"{row.id:56} {cells}  {why}")
    return "\n".join(lines)


def summary() -> str:
    """How the verdicts stand beside what happened, for docs/limits.md."""
    ran = [row for row in outcomes() if row.ran]
    died = [row for row in outcomes() if not row.ran]
    open_rows = [row for row in ran if row.sizing().verdict is Verdict.UNCERTAIN]
    named = [row for row in open_rows if is_settled(row.sizing())]
    refused = [row.id for row in ran if row.sizing().verdict is Verdict.DOES_NOT_FIT]
    unmodelled = [row for row in open_rows if row not in named and row.not_modelled]
    cells = (
        f"* of {len(ran)} published runs that ran, {len(ran) - len(open_rows) - len(refused)} are "
        "called fitting;",
        f"  {len(named)} could not be told for want of a fact that the answer names, "
        f"{len(unmodelled)} for a feature that is not",
        f"  modelled, {len(open_rows) - len(named) - len(unmodelled)} for another reason; "
        f"{len(refused)} are said not to fit" + (f" ({', '.join(refused)})" if refused else ""),
        f"* of {len(died)} that ran out of memory, "
        f"{sum(row.sizing().verdict is Verdict.FITS for row in died)} are called fitting, "
        f"{sum(row.sizing().verdict is Verdict.UNCERTAIN for row in died)} could not be told",
    )
    return "\n".join(cells)
