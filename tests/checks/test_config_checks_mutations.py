"""Broken configs of every kind: findings or one InputError, never a traceback."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from checks.test_config_checks import EIGHT_GPUS, INVALID, MODEL, VALID
from hypothesis import given, settings
from hypothesis import strategies as st

from zero_sizer import checks
from zero_sizer.config.document import from_mapping, load
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError

FAST, SLOW = 150, 1200
EXAMPLES = [json.loads(path.read_text(encoding="utf-8")) for path in (*VALID, *INVALID)]
KEYS = sorted(
    {key for config in EXAMPLES for value in [config] for key in value}
    | {"stage", "device", "params", "enabled", "ratio", "nvme_path", "type", "", "a.b", "\u00fc"}
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 10**400, 2**63, 1e308, 5e8, math.nan, math.inf, -math.inf, 1.5]),
    st.sampled_from(["", "auto", "true", "5e8", "1", "none", "cpu", "nvme", "bf16", "NaN", "\0"]),
    st.text(max_size=5),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)


def objects(node: Any) -> list[dict[str, Any]]:
    """Every object in a config, itself included."""
    if not isinstance(node, dict):
        return []
    return [node, *(inner for value in node.values() for inner in objects(value))]


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """An example config with one to four things broken."""
    config = copy.deepcopy(draw(st.sampled_from(EXAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        node = draw(st.sampled_from(objects(config)))
        key = draw(st.sampled_from(sorted(node))) if node else "stage"
        match draw(st.sampled_from(["replace", "drop", "rename", "add", "nest"])):
            case "replace":
                node[key] = draw(JUNK)
            case "drop":
                node.pop(key, None)
            case "rename":
                node[key[:-1] + draw(st.sampled_from(["", "s", "_"]))] = node.pop(key, None)
            case "add":
                node[draw(st.sampled_from(KEYS))] = draw(JUNK)
            case "nest":
                node[key] = {key: node.get(key)}
    return config


def answer(config: dict[str, Any]) -> None:
    """Run everything; a well-formed finding list or InputError is all that may come back."""
    try:
        document = from_mapping(config)
        workload = Workload()
        resolved, found = resolve(document, workload, world_size=8, model=MODEL)
        context = checks.Context(
            document=document,
            settings=resolved,
            cluster=EIGHT_GPUS,
            workload=workload,
            model=MODEL,
        )
        found += checks.run(context)
    except InputError as error:
        found, line = [], str(error)
    else:
        line = ""
    assert "\n" not in line
    for finding in found:
        assert finding.code
        assert finding.message
        assert "\n" not in finding.message


@pytest.mark.slow
@settings(max_examples=FAST)
@given(mutants())
def test_mutants_are_answered(config):
    answer(config)


@pytest.mark.slow
@settings(max_examples=SLOW)
@given(mutants())
def test_thousands_of_mutants_are_answered(config):
    answer(config)


@pytest.mark.slow
@settings(max_examples=SLOW)
@given(st.sampled_from([*VALID, *INVALID]), st.data())
def test_damaged_files_are_answered(tmp_path_factory, path: Path, data):
    text = path.read_text(encoding="utf-8")
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 40)))
    broken = text[:at] + data.draw(st.text(max_size=6)) + text[until:]
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    file.write_bytes(broken.encode("utf-8", "surrogatepass"))
    try:
        config = dict(load(file).values)
    except InputError as error:
        config, line = {}, str(error)
    else:
        line = ""
    assert "\n" not in line
    answer(config)
