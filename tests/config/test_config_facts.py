"""Keys and values met in public configs, each with its source: what they are said to do."""

import json
from pathlib import Path

import pytest
from checks.test_config_checks import findings_of
from support.deepspeed_oracle import judge

from zero_sizer.config.document import from_mapping
from zero_sizer.findings import Severity
from zero_sizer.hardware.cluster import Cluster

FACTS = json.loads((Path(__file__).parents[1] / "data" / "config_facts.json").read_text())
ADAMW = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}  # ZeRO asks for one
ONE_GPU = Cluster(nodes=1, gpus_per_node=1, origins={})


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact['finding']}-{fact['key']}")
def test_each_is_found_where_it_stands(fact):
    found = findings_of(from_mapping(fact["config"]))
    assert (fact["finding"], fact["key"]) in {(f.code, f.key) for f in found}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_error_is_what_deepspeed_refuses():
    pytest.importorskip("deepspeed")
    wrong = []
    configs = [ADAMW | fact["config"] for fact in FACTS]
    outcomes = judge([{"config": config} for config in configs])
    for config, outcome in zip(configs, outcomes, strict=True):
        found = findings_of(from_mapping(config), ONE_GPU)
        errors = [f.message for f in found if f.severity is Severity.ERROR]
        errors = [message for message in errors if "the first step" not in message]  # none is taken
        said = {message.partition(":")[0].partition(",")[0] for message in errors}
        if (outcome["type"] not in said) if errors else outcome["type"]:
            wrong.append((config, outcome, errors))
    assert wrong == []
