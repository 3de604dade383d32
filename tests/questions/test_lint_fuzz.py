"""Nothing that stands in a config breaks lint, the schema or the questions in Python."""

import json
import random

import pytest
from jsonschema import Draft7Validator
from support.answers import JOB
from support.fuzz_values import config_text

import zero_sizer
from zero_sizer.config import document
from zero_sizer.config.resolve import resolve
from zero_sizer.config.schema import config_schema
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.findings import Severity
from zero_sizer.questions.lint import lint
from zero_sizer.report.lint import lint_mapping
from zero_sizer.report.sarif import sarif_mapping

VALIDATOR = Draft7Validator(config_schema())
SEEDS = range(60)
PARSED = {"unknown-key", "removed-key", "wrong-type", "bad-value"}
"""Codes of what a parser says of one key, which a schema can say too."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_any_text(seed, tmp_path):
    path = tmp_path / "ds.json"
    path.write_bytes(config_text(random.Random(seed)))
    found = lint(str(path))
    for mapping in (lint_mapping([found]), sarif_mapping([found])):
        json.dumps(mapping, allow_nan=False)
    try:
        values = document.load(str(path))
    except InputError:
        assert not found.is_readable
        with pytest.raises(zero_sizer.JobError):
            zero_sizer.check(path, **JOB)
        return
    assert found.is_readable
    answer = zero_sizer.check(path, **JOB)
    errors = {(f.code, f.key) for f in found.findings if f.severity is Severity.ERROR}
    assert errors <= {(f.code, f.key) for f in answer.findings if f.severity is Severity.ERROR}
    _, findings = resolve(values, Workload(), world_size=2, model=None)
    if not any(f.severity is Severity.ERROR and f.code in PARSED for f in findings):
        refused = [
            f"{e.json_path}: {e.message[:200]}" for e in VALIDATOR.iter_errors(values.values)
        ]
        assert not refused
