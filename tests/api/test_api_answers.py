"""Python answers what the command line answers, value by value."""

import json
from inspect import signature
from pathlib import Path

import pytest
from support.answers import CONFIG, JOB, TOO_LARGE, as_flags

import zero_sizer
from zero_sizer import cli

RUN = {**JOB, "tokens": "1B", "start": "2026-01-31"}
ASKED = [
    ("check", JOB),
    ("check", TOO_LARGE),
    ("check", {**JOB, "timeline": True}),
    ("check", {**RUN, "rate": 1.5}),
    ("check", {"model": "params=1e9,layers=4,hidden=512"}),
    ("check", {**JOB, "freeze": ["*.wte.*"], "checkpointing": False, "attention": "sdpa"}),
    ("check", {**JOB, "checkpointing_how": "every-2"}),
    ("choose", JOB),
    ("choose", {**RUN, "target_days": 3, "margin": 0.1}),
    ("choose", {**JOB, "largest": "seq-len"}),
    ("size", {**RUN, "max_nodes": 2, "fewest": "nodes", "train_batch_size": 16}),
    ("size", {**JOB, "max_nodes": 2, "target_tokens_per_second": 1e15}),
]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("question", "keywords"), ASKED)
def test_to_dict_is_the_json_of_the_command_line(question, keywords, config, capsys):
    found = getattr(zero_sizer, question)(config, **keywords)
    code = cli.main([question, str(config), *as_flags(keywords), "--format", "json"])
    assert found.to_dict() == json.loads(capsys.readouterr().out)
    if "largest" not in keywords:
        assert found.verdict == found.to_dict()["verdict"]
    assert (code == 0) is found.fits


@pytest.mark.slow
@pytest.mark.parametrize(("question", "keywords"), ASKED[:2] + ASKED[7:8] + ASKED[-1:])
def test_the_text_is_that_of_the_command_line(question, keywords, config, capsys):
    found = getattr(zero_sizer, question)(str(config), **keywords)
    cli.main([question, str(config), *as_flags(keywords)])
    assert str(found) == capsys.readouterr().out.rstrip("\n")


def test_a_mapping_is_the_file_without_its_lines(config):
    by_path = zero_sizer.check(config, **JOB).to_dict()
    by_mapping = zero_sizer.check(CONFIG, **JOB).to_dict()
    of_job = zero_sizer.check({"deepspeed": CONFIG, "model": "gpt2"}, **JOB).to_dict()
    for other in (by_mapping, of_job):
        assert other["devices"] == by_path["devices"]
        assert other["verdict"] == by_path["verdict"]
    assert by_mapping["job"]["bf16.enabled"]["origin"] == "<dict>"


def test_a_job_file_says_what_the_keywords_say(tmp_path):
    path = tmp_path / "job.yaml"
    told = {"model": "gpt2", "deepspeed": CONFIG, "workload": {"seq_len": 128}}
    told["cluster"] = {"gpu": "l4", "gpus_per_node": 2}
    path.write_text(json.dumps(told))
    by_file = zero_sizer.check(path)
    assert by_file.devices == zero_sizer.check(CONFIG, **JOB).devices
    assert zero_sizer.check(told).devices == by_file.devices
    longer = zero_sizer.check(path, seq_len=512)
    assert longer.phases["gpu"]["forward"] > by_file.phases["gpu"]["forward"]


def test_attributes_are_the_json_s_values():
    found = zero_sizer.check(CONFIG, **TOO_LARGE)
    mapping = found.to_dict()
    assert (found.verdict, found.valid, found.fits) == ("does_not_fit", True, False)
    use = found.devices["gpu"]
    assert use.peak_bytes == mapping["devices"]["gpu"]["peak_bytes"]
    assert use.shortfall_bytes == mapping["devices"]["gpu"]["shortfall_bytes"] > 0
    assert use.reserved.high >= use.peak_bytes
    named = [(a.name, a.num_bytes) for a in found.allocations]
    assert named == [(a["name"], a["num_bytes"]) for a in mapping["allocations"]]
    assert [f.code for f in found.findings] == [f["code"] for f in mapping["findings"]]
    assert found.fixes == mapping["fixes"]
    assert found.speed == {}
    mapping["verdict"] = "changed"
    assert found.to_dict()["verdict"] == "does_not_fit"


@pytest.mark.slow
def test_what_a_config_says_is_no_markup():
    strange = {**CONFIG, "<script>alert(1)</script>": 1, "\x1b[31m": 2}
    for found in (
        zero_sizer.check(strange, **JOB),
        zero_sizer.check(strange, **JOB, micro_batch=[1, 2]),
        zero_sizer.choose(strange, **JOB),
    ):
        html = found._repr_html_()
        assert "<script" not in html
        assert "\x1b" not in html + str(found)


def test_a_notebook_shows_verdict_devices_and_findings():
    html = zero_sizer.check(CONFIG, **TOO_LARGE)._repr_html_()
    for shown in ("DOES NOT FIT", "backward", "exp_avg", "capacity", "it would fit with"):
        assert shown in html, shown


def test_names_are_there_before_they_are_imported():
    assert set(zero_sizer.__all__) <= set(dir(zero_sizer))
    for name in zero_sizer.__all__:
        assert getattr(zero_sizer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'chek'"):
        zero_sizer.chek  # noqa: B018
    assert "seq_len" in signature(zero_sizer.check).parameters
    assert "seq_len: of each sample" in (zero_sizer.check.__doc__ or "")


def test_the_package_itself_is_light():
    import subprocess
    import sys

    code = "import sys, zero_sizer; print(*[m for m in sys.modules if m.startswith('zero_s')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["zero_sizer.version", "zero_sizer"] or set(
        done.stdout.split()
    ) == {"zero_sizer", "zero_sizer.version"}


def test_every_example_config_is_answered_alike(capsys):
    root = Path(__file__).parents[2] / "deepspeed_configs"
    for path in sorted(root.glob("*.json"))[:3]:
        cli.main(["check", str(path), *as_flags(JOB), "--format", "json"])
        assert zero_sizer.check(path, **JOB).to_dict() == json.loads(capsys.readouterr().out)
