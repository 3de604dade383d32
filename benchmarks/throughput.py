"""The step-time model against 108 and 10 measured training runs (125M to 70B, 8 to 512 GPUs).

Run it to print the table that docs/speed.md shows: ``python benchmarks/throughput.py [--write]``.
Nothing is fitted to a single row; the few constants are in zero_sizer/speed/data/rates.json.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import REENTRANT, Checkpointing, Workload
from zero_sizer.hardware import catalog
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.resolve import plan_of, settings_of
from zero_sizer.speed import Case, step_time
from zero_sizer.speed.rates import table as rates_table

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data" / "throughput.json"
OFFLOAD = ROOT / "tests" / "data" / "throughput_deepspeed.json"
DOC = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

_STAGE = {"FULL_SHARD": 3, "SHARD_GRAD_OP": 2}
# Rows without autocast are of torch 1.13 (submit_benchmarks.py's image), whose checkpoints do not
# stop early: torch's do from 2.1 on.
_CHECKPOINTS = {
    "bf16": Checkpointing(by=REENTRANT),
    "amp_bf16": Checkpointing(),
    "amp_fp8": Checkpointing(),
}
# An H100's FP8 matrix product of 8192^3 (Azure's benchmarking guide, H100 v5), and the share
# of such a measurement that training keeps (rates.json).
FP8_TFLOPS = 1290.1


@dataclass(frozen=True)
class Result:
    """One row: tokens per second and GPU, measured and predicted (low, expected, high)."""

    row: Mapping[str, Any]
    measured: float
    predicted: tuple[float, float, float]

    @property
    def error(self) -> float:
        return self.predicted[1] / self.measured - 1


def mpt(name: str, seq_len: int, facts: Mapping[str, Any]) -> ModelSpec:
    """An MPT model: learned positions, tied head, biases everywhere."""
    hidden, layers, heads = facts["shapes"][name]
    vocab = facts["vocab"]
    tensors = [
        Tensor("transformer.wte.weight", (vocab, hidden), module_type="SharedEmbedding"),
        Tensor("transformer.wpe.weight", (seq_len, hidden), module_type="Embedding"),
    ]
    for index in range(layers):
        tensors += _block(f"transformer.blocks.{index}.", hidden)
    tensors += _layer_norm("transformer.norm_f", hidden)
    return ModelSpec(
        name=name,
        origin=facts["shapes_source"],
        parameters=tuple(tensors),
        arch=Architecture(
            family="mpt",
            num_layers=layers,
            hidden=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            ffn=4 * hidden,
            vocab=vocab,
            tied_embeddings=True,
        ),
    )


def _block(prefix: str, hidden: int) -> Iterator[Tensor]:
    yield from _layer_norm(prefix + "norm_1", hidden)
    yield from _linear(prefix + "attn.Wqkv", hidden, 3 * hidden)
    yield from _linear(prefix + "attn.out_proj", hidden, hidden)
    yield from _layer_norm(prefix + "norm_2", hidden)
    yield from _linear(prefix + "ffn.up_proj", hidden, 4 * hidden)
    yield from _linear(prefix + "ffn.down_proj", 4 * hidden, hidden)


def _linear(name: str, inputs: int, outputs: int) -> Iterator[Tensor]:
    yield Tensor(name + ".weight", (outputs, inputs), module_type="Linear")
    yield Tensor(name + ".bias", (outputs,), module_type="Linear")


def _layer_norm(name: str, hidden: int) -> Iterator[Tensor]:
    yield Tensor(name + ".weight", (hidden,), module_type="LayerNorm")
    yield Tensor(name + ".bias", (hidden,), module_type="LayerNorm")


def job_of(row: Mapping[str, Any], facts: Mapping[str, Any]) -> Job:
    """The DeepSpeed job that holds what the row's run held."""
    ranks = min(8, row["gpus"])
    kept = rates_table()["matmul"]["training"][Case.EXPECTED]
    return Job(
        document=document.from_mapping(_config(row, {"overlap_comm": True})),
        model=mpt(row["model"], row["seq_len"], facts),
        cluster=Cluster(
            nodes=row["gpus"] // ranks,
            gpus_per_node=ranks,
            gpu=catalog.find(row["gpu"]),
            rates={"matmul_tflops": FP8_TFLOPS * kept} if row["precision"] == "amp_fp8" else {},
            origins={},
        ),
        workload=Workload(
            seq_len=row["seq_len"],
            checkpointing=row["activation_checkpointing"],
            checkpointing_how=_CHECKPOINTS[row["precision"]],
            attention="flash",
            attention_kernel="flash-1",  # which the fitted constant stands for
            loss="fused",  # llmfoundry/models/mpt/modeling_mpt.py: loss_fn, its default
        ),
        origins={},
    )


def timed_job_of(row: Mapping[str, Any], facts: Mapping[str, Any]) -> Job:
    """The DeepSpeed job that moves what the row's run moved."""
    job = job_of(row, facts)
    assert job.model is not None  # noqa: S101
    block = sum(t.numel for t in job.model.parameters if ".blocks.0." in t.name)
    zero = {
        "overlap_comm": True,
        # FSDP gathers and reduces a block at once, and gathers it again for backward
        "stage3_prefetch_bucket_size": block,
        "reduce_bucket_size": block,
        "stage3_max_reuse_distance": 0,
    }
    config = _config(row, zero)
    # the table's MP Mode: DEFAULT with autocast, PURE without (composer mosaic_parallelism.py)
    is_pure = not row["precision"].startswith("amp")
    config["communication_data_type"] = "bf16" if is_pure else "fp32"
    return replace(
        job,
        document=document.from_mapping(config),
        # transformers' moves 36 bytes a logit, the runs 34: a fused loss (6), and two metrics of
        # torch's cross entropy on fp32 copies (14 each; use_train_metrics, on by default)
        workload=replace(job.workload, loss="transformers"),
    )


def _config(row: Mapping[str, Any], zero: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": _STAGE[row["sharding"]], **zero},
        "train_micro_batch_size_per_gpu": row["micro_batch"],
        "gradient_accumulation_steps": row["grad_accum"],
    }


def predict(row: Mapping[str, Any], facts: Mapping[str, Any]) -> Result:
    """The row beside its prediction."""
    return result(row, timed_job_of(row, facts), row["tokens_per_s_per_gpu"])


def planned(job: Job) -> tuple[Plan, Cluster]:
    """The job's plan, and its cluster."""
    settings, _ = settings_of(job)
    plan = plan_of(job, settings).plan
    assert plan is not None  # noqa: S101
    return plan, job.cluster


def result(row: Mapping[str, Any], job: Job, measured: float) -> Result:
    """A measured throughput beside the job's prediction."""
    plan, cluster = planned(job)
    times = [step_time(plan, cluster, case) for case in Case]
    low, expected, high = (time.tokens_per_second for time in reversed(times) if time)
    return Result(row, measured, (low, expected, high))


def results(facts: Mapping[str, Any]) -> list[Result]:
    return [predict(row, facts) for row in facts["rows"]]


def deepspeed_results() -> list[Result]:
    """Runs of DeepSpeed itself: of all rates, only that of host memory was taken from them."""
    facts = json.loads(OFFLOAD.read_text(encoding="utf-8"))
    cluster = Cluster(gpus_per_node=facts["gpus"], gpu=catalog.find(facts["gpu"]), origins={})
    found = []
    for row in facts["rows"]:
        zero: dict[str, Any] = {"stage": row["stage"]}
        for key in ("offload_optimizer", "offload_param"):
            if row[key]:
                zero[key] = {"device": "cpu"}
        job = Job(
            document=document.from_mapping(
                {
                    "bf16": {"enabled": True},
                    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
                    "zero_optimization": zero,
                    "train_batch_size": row["train_batch"],
                    "train_micro_batch_size_per_gpu": row["micro_batch"],
                }
            ),
            model=models.load(facts["model"]),
            cluster=cluster,
            workload=Workload(
                seq_len=facts["seq_len"],
                checkpointing=row["checkpointing"],
                checkpointing_how=Checkpointing(by=REENTRANT),  # the Trainer's default in 2024
                attention="flash",
            ),
            origins={},
        )
        tokens = row["samples_per_s"] * facts["seq_len"] / facts["gpus"]
        found.append(result(row, job, tokens))
    return found


def deepspeed_table(found: list[Result]) -> str:
    """Markdown: every row, slowest end, expected and fastest end beside what was measured."""
    lines = ["| stage | checkpointing | offload | micro batch | measured | low | expected | high |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for result in found:
        row = result.row
        offload = "all" if row["offload_param"] else "optimizer" if row["offload_optimizer"] else ""
        figures = (result.measured, *result.predicted)
        lines.append(
            f"| {row['stage']} | {'yes' if row['checkpointing'] else 'no'} | {offload} "
            f"| {row['micro_batch']} x {row['train_batch']} | "
            + " | ".join(f"{figure:,.0f}" for figure in figures)
            + " |"
        )
    inside = sum(r.predicted[0] <= r.measured <= r.predicted[2] for r in found)
    lines += ["", f"{inside} of {len(found)} inside low..high, in tokens/s and GPU; rank "]
    lines[-1] += (
        f"correlation {rank_correlation(found):.2f}, median error {median_error(found):.0%}."
    )
    return "\n".join(lines)


def read() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return facts


def rank_correlation(found: Iterable[Result]) -> float:
    """Spearman's, ties sharing their mean rank."""
    found = list(found)
    first = _ranks([result.measured for result in found])
    second = _ranks([result.predicted[1] for result in found])
    return statistics.correlation(first, second)


def _ranks(values: list[float]) -> list[float]:
    ordered = sorted(values)
    return [(ordered.index(v) + len(ordered) - ordered[::-1].index(v) - 1) / 2 for v in values]


def median_error(found: Iterable[Result]) -> float:
    return statistics.median(abs(result.error) for result in found)


def table(found: list[Result]) -> str:
    """Markdown: all rows, each GPU and precision, and the worst rows one by one."""
    lines = ["| rows | runs | median error | worst | inside low..high |", "|---|---|---|---|---|"]
    groups = {"all": found}
    for result in found:
        key = f"{result.row['gpu']} {result.row['precision']}"
        groups.setdefault(key, []).append(result)
    for name, group in groups.items():
        inside = sum(r.predicted[0] <= r.measured <= r.predicted[2] for r in group)
        worst = max((r.error for r in group), key=abs)
        lines.append(
            f"| {name} | {len(group)} | {median_error(group):.1%} | {worst:+.1%} "
            f"| {inside} of {len(group)} |"
        )
    lines += ["", f"Rank correlation {rank_correlation(found):.3f}. The ten worst:", ""]
    lines += ["| model | GPUs | tokens | micro batch | measured tokens/s | predicted | error |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for result in sorted(found, key=lambda r: -abs(r.error))[:10]:
        row = result.row
        lines.append(
            f"| {row['model']} {row['precision']} | {row['gpus']} {row['gpu']} | {row['seq_len']} "
            f"| {row['micro_batch']} | {result.measured:,.0f} | {result.predicted[1]:,.0f} "
            f"| {result.error:+.1%} |"
        )
    return "\n".join(lines)


def whole_text() -> str:
    """What docs/speed.md shows."""
    return f"""{table(results(read()))}

And DeepSpeed itself (`tests/data/throughput_deepspeed.json`), LLaMA-7B on 8 A800. The slow end of
host memory comes from these runs, and half of its expected rate (a geometric mean with one other
run): the rows with offload show what that rate gives, and test nothing of it. All other rates are
from elsewhere; a plain training loop runs near the slow end of everything:

{deepspeed_table(deepspeed_results())}"""


def main() -> None:
    text = whole_text()
    print(text)
    if "--write" in sys.argv:
        before, _, rest = DOC.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        DOC.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
