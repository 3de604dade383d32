"""Several keys at once: the resolver and the rules together judge as DeepSpeed's parser judges."""

from typing import Any

import pytest
from config.test_config_against_deepspeed import FILLED, VALUES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.config_witness import BASE, errors, load_witness, merged, nested

from zero_sizer import checks
from zero_sizer.config import keys
from zero_sizer.config.batch import KEYS as BATCH_KEYS
from zero_sizer.config.document import from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Severity
from zero_sizer.hardware.cluster import Cluster

PATHS = [path for path in keys.table().keys if path not in BATCH_KEYS]
CROWDED = [path for path in PATHS if path.startswith(("zero_", "fp16", "bf16", "grad", "optim"))]


def fitting(path: str) -> st.SearchStrategy[Any]:
    """Values of the right type, which reach the rules behind the types."""
    key = keys.table().keys[path]
    if key.allowed:
        return st.sampled_from(key.allowed)
    if key.type == "bool" or isinstance(key.default, bool):
        return st.booleans()
    numbers = {"int": [0, 1, 2, 10, 10**6], "float": [0.0, 0.5, 1.0]}
    return st.sampled_from(numbers.get(key.type, [key.default, None, 1, "x", ["x"]]))


def entry(path: str) -> st.SearchStrategy[tuple[str, Any]]:
    values = st.one_of(*[fitting(path)] * 9, st.sampled_from(VALUES))
    return st.tuples(st.just(path), values)


entries = st.lists((st.sampled_from(CROWDED) | st.sampled_from(PATHS)).flatmap(entry), max_size=6)


@pytest.mark.slow
@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stage=st.integers(0, 3), entries=entries)
def test_refused_by_one_is_refused_by_the_other(
    monkeypatch: pytest.MonkeyPatch, stage: int, entries: list[tuple[str, Any]]
) -> None:
    witness = load_witness(monkeypatch)
    config = merged(BASE, {"zero_optimization": {"stage": stage}})
    for path, value in entries:
        if not (value == "auto" and path in FILLED):
            config = merged(config, nested(path, value))
    refusal = witness.refusal(config)
    document, workload = from_mapping(config), Workload()
    ours, findings = resolve(document, workload, world_size=1, model=None)
    if errors(findings):
        assert refusal, findings
    context = checks.Context(
        document=document, settings=ours, cluster=Cluster(origins={}), workload=workload
    )
    rules = [f for f in checks.run(context) if f.severity is Severity.ERROR]
    assert not refusal or errors(findings) or rules, (refusal, config)
