"""Keywords are the flags; several values make a sweep; what is wrong is one exception."""

import argparse
import copy
import itertools
from importlib import import_module
from pathlib import Path

import pytest
from support.answers import CONFIG, JOB

import zero_sizer
from zero_sizer.api.keywords import KEYWORDS, MOST
from zero_sizer.api.typed import CheckKeywords, PlanKeywords, SizeKeywords
from zero_sizer.cli.parser import Parser

NOT_IN_PYTHON = {
    "help",
    "format",
    "output",
    "emit",
    "emit_job",
    "emit_launch",
    "emit_args",
    "force",
}


@pytest.mark.parametrize("question", KEYWORDS)
def test_keywords_are_the_flags(question):
    parser = Parser()
    import_module(f"zero_sizer.cli.{question}").configure(parser)
    options = [a for a in parser._actions if a.option_strings]
    flags = {action.dest for action in options} - NOT_IN_PYTHON
    if question == "size":
        flags -= {"nodes"}  # refused: the answer
    assert {field.name for field in KEYWORDS[question]} == flags


def test_type_checkers_see_every_keyword():
    typed = {"check": CheckKeywords, "choose": PlanKeywords, "size": SizeKeywords}
    for question, of in typed.items():
        other = {"largest"} if question == "choose" else set()  # another answer: another overload
        assert {field.name for field in KEYWORDS[question]} - other == set(of.__annotations__)


def test_choices_of_the_command_line_are_the_keyword_s():
    parser = argparse.ArgumentParser()
    import_module("zero_sizer.cli.size").configure(parser)
    (fewest,) = (action for action in parser._actions if action.dest == "fewest")
    checks = {field.name: field.check for field in KEYWORDS["size"]}
    assert checks["fewest"].choices == tuple(fewest.choices)


@pytest.mark.slow
def test_a_sweep_has_a_row_for_every_combination():
    sweep = zero_sizer.check(CONFIG, **JOB, micro_batch=[1, 2, 4], attention=("sdpa", "eager"))
    pairs = [(row["micro_batch"], row["attention"]) for row in sweep]
    assert pairs == list(itertools.product([1, 2, 4], ["sdpa", "eager"]))
    for row, found in zip(sweep, sweep.results, strict=True):
        told = {name: row[name] for name in ("micro_batch", "attention")}
        alone = zero_sizer.check(CONFIG, **JOB, **told)
        assert found.to_dict() == alone.to_dict()
        assert row["gpu_peak_bytes"] == alone.devices["gpu"].peak_bytes
        assert row["verdict"] == alone.verdict
    assert sweep[-1] == list(sweep)[-1]
    assert len(sweep[1:3]) == 2
    assert "<table>" in sweep._repr_html_()


def test_a_sweep_is_a_data_frame():
    pandas = pytest.importorskip("pandas")
    numpy = pytest.importorskip("numpy")
    frame = pandas.DataFrame(zero_sizer.check(CONFIG, **JOB, micro_batch=numpy.arange(1, 4)))
    assert list(frame["micro_batch"]) == [1, 2, 3]
    assert frame["gpu_peak_bytes"].is_monotonic_increasing
    assert str(frame["gpu_peak_bytes"].dtype) == "int64"


@pytest.mark.parametrize(
    "values",
    [range(1, 3), iter([1, 2]), (1, 2), {1, 2}, (n for n in (1, 2))],
    ids=["range", "iterator", "tuple", "set", "generator"],
)
def test_anything_that_has_values_makes_a_sweep(values):
    assert len(zero_sizer.check(CONFIG, **JOB, micro_batch=values)) == 2


def test_configs_and_choices_are_swept_too(tmp_path):
    third = copy.deepcopy(CONFIG)
    third["zero_optimization"]["stage"] = 3
    sweep = zero_sizer.check([CONFIG, third], **JOB)
    first, second = (result.devices["gpu"].peak_bytes for result in sweep.results)
    assert first != second
    plans = zero_sizer.choose(**{**JOB, "gpus_per_node": [1, 2]})
    assert [row["world_size"] for row in plans] == [1, 2]


def test_text_and_patterns_are_one_value():
    alone = zero_sizer.check(CONFIG, **JOB, freeze=["*.wte.*", "*.wpe.*"])
    assert alone.verdict == "fits"
    several = zero_sizer.check(CONFIG, **JOB, freeze=[["*.wte.*"], ["*.wte.*", "*.wpe.*"]])
    assert len(several) == 2


WRONG = [
    (CONFIG, {"modle": "gpt2"}, "did you mean model?"),
    (CONFIG, {"model": "gpt22"}, "--model: unknown model 'gpt22'"),
    (CONFIG, {"model": 5}, "--model: 5 is not a name"),
    (CONFIG, {"model": "gpt2", "nodes": "2"}, "--nodes: '2' is not a whole number"),
    (CONFIG, {"model": "gpt2", "nodes": float("nan")}, "is not a whole number"),
    (CONFIG, {"model": "gpt2", "gpu": "h1000"}, "did you mean"),
    (CONFIG, {"model": "gpt2", "micro_batch": []}, "no value at all"),
    (CONFIG, {"model": "gpt2", "micro_batch": itertools.count(1)}, f"more than {MOST:,} jobs"),
    (CONFIG, {"model": "gpt2", "budget": 3}, "no keyword of check"),
    (CONFIG, {}, "no model"),
    ({1: 2}, {"model": "gpt2"}, "not a string"),
    ({"deepspeed": 5}, {"model": "gpt2"}, "is not a path or a mapping"),
    ({"deepspeed": CONFIG, "modle": "x"}, {}, "did you mean model?"),
    ("no/such.json", {"model": "gpt2"}, "No such file"),
    ("", {"model": "gpt2"}, "no config"),
    (None, {"model": "gpt2"}, "no config"),
    (b"{}", {"model": "gpt2"}, "a config is a path or a mapping"),
    (Path("."), {"model": "gpt2"}, "folder"),
]


@pytest.mark.parametrize(
    ("config", "keywords", "message"), WRONG, ids=lambda value: repr(value)[:30]
)
def test_what_is_wrong_is_one_exception(config, keywords, message):
    with pytest.raises(zero_sizer.JobError) as raised:
        zero_sizer.check(config, **keywords)
    error = raised.value
    assert message in str(error)
    assert error.__cause__ is None
    (finding,) = error.findings
    assert finding.severity.value == "error"
    assert finding.message == error.message
    assert error.exit_code == 2
    assert type(copy.copy(error)) is zero_sizer.JobError  # as another process would get it


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"margin": 1}, "--margin: 1 is not between 0 and 1"),
        ({"largest": "batch"}, "--largest: 'batch' is not one of"),
        ({"largest": "seq-len", "tokens": "1B"}, "not with --largest"),
        ({"gpu": None}, "GPU"),
    ],
)
def test_a_choice_is_wrong_in_the_same_way(keywords, message):
    with pytest.raises(zero_sizer.JobError, match=message):
        zero_sizer.choose(CONFIG, **{**JOB, **keywords})


def test_a_broken_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text('{\n"a": 1,\n"b" }')
    with pytest.raises(zero_sizer.JobError) as raised:
        zero_sizer.check(path, model="gpt2")
    assert raised.value.where.startswith(str(path))
    assert raised.value.findings[0].line == 3


@pytest.mark.slow
def test_a_sweep_looks_for_no_fix_that_nobody_asks_for(monkeypatch):
    """Seconds for each job that does not fit; the answer has them once they are asked for."""
    from zero_sizer import answer

    looked = []
    find = answer._fixes
    monkeypatch.setattr(answer, "_fixes", lambda sizing: looked.append(sizing) or find(sizing))
    sweep = zero_sizer.check(CONFIG, **{**JOB, "model": "llama-2-7b"}, micro_batch=[1, 2])
    assert [row["verdict"] for row in sweep] == ["does_not_fit"] * 2
    assert not looked
    assert sweep.results[0].fixes
    assert len(looked) == 1
