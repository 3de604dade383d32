"""A slice of the fuzz, the same each time; ``scripts/fuzz --count N`` is the long run."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import fuzzing

RECORD = Path(__file__).parents[2] / "benchmarks" / "fuzz.json"
SLICE = {
    "check": 60,
    "others": 10,
    "searches": 3,
    "nonsense": 40,
    "questions": 25,
    "readers": 300,
    "tools": 120,
}
# Cases that once broke something, each as (group, seed).
FOUND = [
    ("nonsense", 19),  # true for a count of elements
    ("nonsense", 38),  # a clipping norm that is a list, or negative
    ("nonsense", 130),  # half a sample
    ("check", 10105),  # a count of 400 digits
    ("readers", 88448),  # a field of another family that is read all the same
    ("check", 1031),  # stacked matrices without an element
    ("check", 500848),  # a batch of 99 bits, which a fix would double
    ("check", 503732),  # a width of experts that is a mapping
    ("tools", 515),  # an optimizer's name that is a mapping
    ("check", 513182),  # names of classes that are a number, beside a checkpoint
]


@pytest.fixture(autouse=True)
def light_core(monkeypatch, tmp_path):
    """No transformers, no cache, and no file of the folder we happen to be in."""
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("group", fuzzing.GROUPS)
def test_nothing_in_a_file_breaks_a_reader_or_a_command(group, tmp_path):
    @settings(
        max_examples=SLICE[group],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def hold(seed):
        assert fuzzing.broken(fuzzing.draw(group, seed), tmp_path) == ""

    hold()


@pytest.mark.parametrize(("group", "seed"), FOUND)
def test_what_broke_once_does_not_break_again(group, seed, tmp_path):
    assert fuzzing.broken(fuzzing.draw(group, seed), tmp_path) == ""


def test_the_same_seed_gives_the_same_case():
    for group in fuzzing.GROUPS:
        one, other = fuzzing.draw(group, 7), fuzzing.draw(group, 7)
        assert (one.kind, one.argv, one.files) == (other.kind, other.argv, other.files)


def test_the_fuzz_sees_what_it_looks_for(tmp_path):
    """A reader that raises, and an answer that steers a terminal, are told."""

    def raises(folder):
        raise KeyError(folder)

    assert "KeyError" in fuzzing.broken(fuzzing.Case("x", call=raises), tmp_path)
    case = fuzzing.Case("x", ("check",), nonsense="zero_optimization.stage")
    assert "steers" in fuzzing.said(case, 0, "\x1b[31m\n", "")
    assert "exit code" in fuzzing.said(case, 120, "a\n", "")
    assert "lines of error" in fuzzing.said(case, 2, "", "a\nb\n")
    quiet = fuzzing.Case("x", ("--format=json",), nonsense="zero_optimization.stage")
    assert "without a word" in fuzzing.said(quiet, 0, '{"valid": true, "findings": []}\n', "")


def test_the_committed_record_is_clean_and_of_every_kind():
    counted: dict[str, int] = {}
    for run in json.loads(RECORD.read_text(encoding="utf-8"))["runs"]:
        assert run["broken"] == []
        assert max(run["slowest_cpu_seconds"].values()) <= fuzzing.SECONDS
        assert run["most_resident_mib"] <= 512
        for kind, count in run["by_kind"].items():
            counted[kind] = counted.get(kind, 0) + count
    drawn = {fuzzing.draw(group, seed).kind for group in fuzzing.GROUPS for seed in range(100)}
    assert drawn <= counted.keys()
    assert sum(counted.values()) >= 300_000
    assert sum(n for kind, n in counted.items() if kind.startswith("check: ")) >= 30_000
    assert counted["choose"] + counted["size"] >= 2_000
