"""Configs from public repositories (outside this one; skipped without them): resolver and rules."""

import json
from pathlib import Path
from typing import Any

import pytest
from config_witness import load_witness
from deepspeed_oracle import judge
from test_config_real import filled

from zero_sizer import checks
from zero_sizer.config.batch import KEYS as BATCH_KEYS
from zero_sizer.config.document import Document, load
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.cluster import Cluster

FOLDER = Path(__file__).parents[2] / "shared" / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.json"))
# Refused by the engine after the parser has let them pass.
ENGINE_CODES = {
    "lamb-loss-scale",
    "max-grad-norm",
    "optimizer-argument",
    "removed-optimizer",
    "scheduler-argument",
    "scheduler-steps",
    "tensor-parallel-world-size",
    "torch-scheduler",
    "unknown-optimizer",
    "untested-optimizer",
}
# Recorded without a GPU, or outside a process group (where sequence_parallel_size has no say).
OTHERWISE_RECORDED = {
    "deepspeedai__DeepSpeedExamples__ds_offload_nvme_gds.json",
    "deepspeedai__DeepSpeedExamples__autosp_config.json",
}

pytestmark = pytest.mark.skipif(not CONFIGS, reason="the collected configs are not here")


def readable() -> dict[Path, Document]:
    """Every config that can be read."""
    found = {}
    for path in CONFIGS:
        try:
            found[path] = load(path)
        except InputError:
            continue
    return found


def errors_of(document: Document) -> list[Finding]:
    """Errors on one GPU, with the flags that a Trainer would need for "auto"."""
    auto = {key for key in BATCH_KEYS if document.get(key) == "auto"}
    micro = 1 if "train_micro_batch_size_per_gpu" in auto else None
    workload = Workload(micro_batch=micro)
    settings, found = resolve(document, workload, world_size=1, model=None)
    context = checks.Context(
        document=document, settings=settings, cluster=Cluster(origins={}), workload=workload
    )
    found += checks.run(context)
    return [finding for finding in found if finding.severity is Severity.ERROR]


def manifest() -> dict[str, list[dict[str, Any]]]:
    """Rows by file name without its number: the numbers of files and rows are not the same."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in (FOLDER / "MANIFEST.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault(row["file"].partition("_")[2], []).append(row)
    return rows


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem[:40])
def test_every_config_is_answered(path):
    try:
        found = errors_of(load(path))
    except InputError as error:
        found, line = [], str(error)
    else:
        line = ""
    assert "\n" not in line
    assert all(finding.message for finding in found)


def test_the_recorded_verdicts_are_ours():
    rows, names = manifest(), [path.name.partition("_")[2] for path in CONFIGS]
    compared, wrong = 0, []
    for path, document in readable().items():
        name = path.name.partition("_")[2]
        if len(rows.get(name, [])) != 1 or names.count(name) != 1:
            continue
        row = rows[name][0]
        accepted = row.get("deepspeed_accepts")
        if accepted is None or name in OTHERWISE_RECORDED:
            continue
        compared += 1
        refused = {finding.code for finding in errors_of(document)} - ENGINE_CODES
        if bool(refused) == accepted:
            wrong.append((path.name, refused, row.get("deepspeed_error")))
    assert wrong == []
    assert compared > 100


@pytest.mark.slow
def test_an_error_appears_exactly_when_the_parser_refuses(monkeypatch):
    witness, wrong = load_witness(monkeypatch), []
    for path, document in readable().items():
        refusal = witness.refusal(filled(json.loads(json.dumps(document.values))))
        refused = {finding.code for finding in errors_of(document)} - ENGINE_CODES
        if bool(refusal) != bool(refused):
            wrong.append((path.name, refusal, refused))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_engine_refuses_what_only_the_engine_can():
    pytest.importorskip("deepspeed")
    documents = {
        path: document
        for path, document in readable().items()
        if (codes := {finding.code for finding in errors_of(document)}) and codes <= ENGINE_CODES
    }
    assert documents
    jobs = [{"config": filled(json.loads(json.dumps(d.values)))} for d in documents.values()]
    for (path, document), outcome in zip(documents.items(), judge(jobs), strict=True):
        said = {finding.message.partition(":")[0] for finding in errors_of(document)}
        assert any(outcome["type"] in message for message in said), (path.name, outcome, said)
        assert outcome["type"], path.name
