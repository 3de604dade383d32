"""The rules over a config, on the example configs in deepspeed_configs."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from zero_sizer import checks
from zero_sizer.checks import scheduler
from zero_sizer.config import engine
from zero_sizer.config.document import Document, from_mapping, load
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.models.spec import ModelSpec, Tensor

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "deepspeed_configs"
INVALID = sorted(EXAMPLES.glob("invalid/*/*.json"))
VALID = sorted(EXAMPLES.glob("valid/*.json"))
# 12.5 M parameters on each of 8 ranks: one sub-group at the default size.
MODEL = ModelSpec(name="hundred-million", origin="test", parameters=(Tensor("w", (10**4, 10**4)),))
NEED_MORE = (
    *("adapter.py", "forward.py", "freeze.py", "inputs.py", "saving.py", "shapes.py", "trainer.py"),
)
EIGHT_GPUS = Cluster(nodes=1, gpus_per_node=8, origins={})


def findings_of(
    document: Document, cluster: Cluster = EIGHT_GPUS, model: ModelSpec | None = MODEL
) -> list[Finding]:
    """Everything the resolver and the rules say."""
    workload = Workload()
    settings, found = resolve(document, workload, world_size=cluster.world_size, model=model)
    context = checks.Context(
        document=document, settings=settings, cluster=cluster, workload=workload, model=model
    )
    return [*found, *checks.run(context)]


def codes_in_source() -> dict[str, set[str]]:
    """Code -> severities it is reported with, read off the rules' calls.

    Rules about adapters need a model that has one (test_models_adapter), those about its forward
    and about what is frozen need flags (test_checks_forward, test_freeze), those about shapes heads
    and experts (test_checks_shapes), the Trainer's a flag (test_checks_trainer), those about inputs
    a model that takes none (models/test_feeds).
    """
    found: dict[str, set[str]] = {}
    rules = sorted((ROOT / "zero_sizer" / "checks").glob("*.py"))
    for path in (path for path in rules if path.name not in NEED_MORE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                first = node.args[0] if node.args else None
                if node.func.attr in ("error", "warning") and isinstance(first, ast.Constant):
                    found.setdefault(str(first.value), set()).add(node.func.attr)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_invalid_example_yields_its_code(path):
    document = load(path)
    code = path.parent.name
    found = [finding for finding in findings_of(document) if finding.code == code]
    if not found:  # said by the rules only where no model tells more
        found = [f for f in findings_of(document, model=None) if f.code == code]
    assert found, f"{path} does not yield {path.parent.name}"
    for finding in found:
        assert finding.severity is not Severity.NOTE
        assert finding.message
        assert finding.remedy


@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_findings_point_to_the_line_of_their_key(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    document = load(path)
    for finding in findings_of(document):
        if document.has(finding.key):
            name = finding.key.rpartition(".")[2]
            assert f'"{name}"' in lines[finding.line - 1], finding


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid_example_has_neither_error_nor_warning(path):
    found = findings_of(load(path))
    assert [finding for finding in found if finding.severity is not Severity.NOTE] == []


def test_every_code_has_an_example():
    assert set(codes_in_source()) - {path.parent.name for path in INVALID} == set()


def test_error_messages_open_with_the_exception():
    for path in INVALID:
        for finding in findings_of(load(path)):
            if finding.severity is Severity.ERROR:
                assert finding.message.partition(":")[0].partition(",")[0].partition(" ")[0] in (
                    "AssertionError",
                    "AttributeError",
                    "DeepSpeedConfigError",
                    "Exception",
                    "IndexError",
                    "NotImplementedError",
                    "RuntimeError",
                    "TypeError",
                    "ValidationError",
                    "ValueError",
                    "Warning",
                    "ZeroDivisionError",
                ), finding


def test_worst_comes_first():
    document = from_mapping(
        {
            "train_micro_batch_size_per_gpu": 1,
            "optimizer": {"type": "SGD"},
            "zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}},
        }
    )
    settings, _ = resolve(document, Workload(), world_size=8, model=None)
    context = checks.Context(
        document=document, settings=settings, cluster=EIGHT_GPUS, workload=Workload()
    )
    ranks = [list(Severity).index(finding.severity) for finding in checks.run(context)]
    assert ranks == sorted(ranks)
    assert {0, 1, 2} == set(ranks)


def test_an_undecided_precision_is_not_judged():
    document = from_mapping(
        {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": "auto"},
            "data_types": {"grad_accum_dtype": "bf16"},
        }
    )
    assert "grad-accum-dtype" not in {finding.code for finding in findings_of(document)}
    decided = from_mapping({**document.values, "bf16": {"enabled": False}})
    assert "grad-accum-dtype" in {finding.code for finding in findings_of(decided)}


def test_a_load_in_fp32_is_said_where_nobody_names_a_dtype():
    config = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}}

    def told(values, model):
        codes = {f.code: f for f in findings_of(from_mapping(values), model=model)}
        return codes.get("assumed-load-dtype")

    assert "0.37 GiB of host memory" in told(config, MODEL).message  # 4 bytes x 10**8
    named = replace(MODEL, hf_config={"dtype": "bfloat16"})
    made = replace(MODEL, origin="factory net:build")
    assert not any(told(config, model) for model in (named, made, None))
    assert told({**config, "zero_optimization": {"stage": 3}}, MODEL) is None
    assert told({"train_micro_batch_size_per_gpu": 1}, MODEL) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *(("AdmaW", "adamw"), ("sgd", "SGD"), ("rmsprop", "RMSprop"), ("Lionn", "lion")),
        *((name, "of type 'AdamW'") for name in ("FusedAdam", "DeepSpeedCPUAdam")),
        ("DeepSpeedCPULion", "of type 'Lion'"),
    ],
)
def test_misspelt_optimizer_is_recognised(typed, meant):
    document = from_mapping(
        {"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": typed, "params": {}}}
    )
    (finding,) = [f for f in findings_of(document) if f.code == "unknown-optimizer"]
    assert meant in finding.remedy


@pytest.mark.slow
def test_torch_names_are_current():
    torch = pytest.importorskip("torch")
    from torch.optim import lr_scheduler

    def subclasses(module, base):
        kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type)}
        return {n for n, kind in kinds.items() if issubclass(kind, base) and kind is not base}

    assert subclasses(torch.optim, torch.optim.Optimizer) == set(engine.TORCH_OPTIMIZERS)
    found = subclasses(lr_scheduler, lr_scheduler.LRScheduler) - {"_LRScheduler"}
    assert found == set(scheduler.TORCH_SCHEDULERS)


def test_examples_are_tidy():
    for path in (*INVALID, *VALID):
        text = path.read_text(encoding="utf-8")
        assert text == json.dumps(json.loads(text), indent=4) + "\n", path
