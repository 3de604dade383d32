"""lint finds what check finds, as far as no model and no cluster are needed to tell."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support.answers import CONFIG, closed

import zero_sizer
from zero_sizer import checks, cli, models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Severity
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.job.read import Job
from zero_sizer.questions.lint import lint

ROOT = Path(__file__).parents[2]
INVALID = sorted((ROOT / "deepspeed_configs" / "invalid").glob("*/*.json"))
VALID = sorted((ROOT / "deepspeed_configs").glob("*.json"))
FORMATS = ("text", "json", "github", "sarif")
# What a model or the cluster decides, as their messages say.
DECIDED_ELSEWHERE = {
    "nvme-buffers",  # how many are enough: the number of sub-groups, which a model tells
    *(
        "assumed-zero-init",
        "assumed-load-dtype",
        "saved-in-every-process",
        "auto-unresolved",
        "auto-default",
    ),
    *("nvme-unused", "small-sub-groups", "offload-ratio-idle", "nvme-buffer-size"),
    *("batch-triangle", "checkpointing-section", "not-modelled", "sequence-parallel-alone"),
    *("tensor-parallel-world-size", "hpz-world-size", "expert-parallel-size", "hpz-across-nodes"),
    *("sequence-parallel-world-size", "host-unknown"),
}


def on(path, gpus, nodes=1, model="gpt2"):
    """Findings of the rules of check, on a cluster and a model."""
    stated = {"nodes": Stated(nodes, "x"), "gpus_per_node": Stated(gpus, "x")}
    job = Job(
        document=document.load(str(path)),
        model=models.load(model),
        cluster=assemble(stated),
        workload=Workload(),
        origins={},
    )
    context, found = checks.resolved(job)
    return [*found, *checks.run(context)]


def keys(findings, severity=None):
    return {
        (f.code, f.key, f.severity.value)
        for f in findings
        if severity in (None, f.severity) and f.code not in DECIDED_ELSEWHERE
    }


@pytest.mark.parametrize("path", [*INVALID[::2], *VALID], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_it_finds_what_check_finds(path):
    try:
        wanted = on(path, 8)
    except zero_sizer.api.ZeroSizerError:
        assert not lint(str(path)).is_readable
        return
    found = [f for f in lint(str(path)).findings if f.code != "unreadable"]
    assert keys(found) == keys([f for f in wanted if f.direction is None])


@pytest.mark.parametrize("path", INVALID[1::6], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_error_is_one_on_every_cluster(path):
    found = lint(str(path))
    if not found.is_readable:
        return
    errors = {(f.code, f.key) for f in found.findings if f.severity is Severity.ERROR}
    for gpus, nodes in ((1, 1), (2, 1), (3, 1), (8, 1), (8, 4), (5, 7)):
        there = {(f.code, f.key) for f in on(path, gpus, nodes) if f.severity is Severity.ERROR}
        assert errors <= there, (gpus, nodes)


BATCHES = [
    ({"train_batch_size": 512}, True),
    ({"train_batch_size": 512, "train_micro_batch_size_per_gpu": 4}, True),
    ({"train_batch_size": 24, "train_micro_batch_size_per_gpu": 4}, True),  # of 6, 3, 2 GPUs or 1
    (
        {
            "train_batch_size": 264,
            "train_micro_batch_size_per_gpu": 4,
            "gradient_accumulation_steps": 2,
        },
        True,  # of 33 GPUs
    ),
    (
        {
            "train_batch_size": 100,
            "train_micro_batch_size_per_gpu": 3,
            "gradient_accumulation_steps": 1,
        },
        False,  # of no number of them
    ),
    ({"train_batch_size": 100, "train_micro_batch_size_per_gpu": 3}, False),
    ({}, False),
]


@pytest.mark.parametrize(("batch", "is_possible"), BATCHES)
def test_a_batch_is_wrong_only_where_no_number_of_gpus_makes_it(batch, is_possible):
    config = {"zero_optimization": {"stage": 1}, **batch}
    codes = {f.code for f in lint(config).findings if f.severity is Severity.ERROR}
    assert codes == (set() if is_possible else {"batch-triangle"})


def test_groups_of_ranks_are_no_error_of_their_own():
    for name, value in (
        ("tensor_parallel", {"autotp_size": 6}),
        ("zero_optimization", {"stage": 3, "zero_hpz_partition_size": 12}),
        ("sequence_parallel_size", 5),
    ):
        found = lint({**CONFIG, name: value})
        assert found.is_valid, found.findings


def test_a_job_file_is_held_to_its_own_cluster(tmp_path):
    config = {**CONFIG, "train_batch_size": 12, "gradient_accumulation_steps": 1}
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"deepspeed": config, "cluster": {"gpus_per_node": 12}}))
    assert lint(str(path)).is_valid
    path.write_text(json.dumps({"deepspeed": config, "cluster": {"gpus_per_node": 8}}))
    assert lint(str(path)).findings[0].code == "batch-triangle"
    path.write_text(json.dumps({"deepspeed": config, "modle": "gpt2"}))
    assert not lint(str(path)).is_readable


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ("text", "{}/ds.json:3: error"),
        ("github", "file={}/ds.json,line=3"),
        ("sarif", '"uri": "file://{}/ds.json"'),
        ("json", '"file": "{}/ds.json"'),
    ],
)
def test_a_line_is_of_the_file_that_has_it(tmp_path, capsys, form, place):
    """And not of the file, here LLaMA-Factory's, that names the config."""
    config = '{\n"train_micro_batch_size_per_gpu": 1,\n"zero_optimization": {"stage": 7}}'
    (tmp_path / "ds.json").write_text(config)
    lines = ("model_name_or_path: gpt2", "stage: sft", "finetuning_type: lora", "template: x")
    text = "\n".join([*lines, "deepspeed: ds.json"])
    (tmp_path / "job.yaml").write_text(text)
    cli.main(["lint", "--format", form, str(tmp_path / "job.yaml")])
    assert place.format(tmp_path) in capsys.readouterr().out
    (tmp_path / "ds.json").write_text("{")
    assert cli.main(["lint", "--format", form, str(tmp_path / "job.yaml")]) == 2
    assert f"{tmp_path}/ds.json" in capsys.readouterr().out


@pytest.fixture
def files(tmp_path):
    (tmp_path / "good.json").write_text(json.dumps(CONFIG))
    wrong = {**CONFIG, "zero_optimization": {"stagee": 3}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong, indent=1))
    (tmp_path / "broken.json").write_text('{\n"a": }')
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "100%, a:b.json").write_text(json.dumps(wrong, indent=1))
    return tmp_path


CODES = [
    (["good.json"], 0),
    (["wrong.json"], 1),
    (["good.json", "wrong.json", "good.json"], 1),
    (["broken.json"], 2),
    (["wrong.json", "missing.json"], 2),
    (["binary.json", "empty.json", "."], 2),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("names", "code"), CODES)
def test_exit_codes_are_those_of_check(names, code, form, files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    assert cli.main(["lint", "--format", form, *names]) == code
    out = capsys.readouterr().out
    if form == "json":
        document = json.loads(out)
        assert not list(Draft202012Validator(closed("lint")).iter_errors(document))
        assert [one["file"] for one in document["files"]] == names
        assert document["valid"] is (code == 0)
        assert document == zero_sizer.lint(*names).to_dict()


def test_bad_usage_is_2(files, monkeypatch):
    monkeypatch.chdir(files)
    for words in ([], ["--format", "yaml", "good.json"]):
        with pytest.raises(SystemExit) as left:
            cli.main(["lint", *words])
        assert left.value.code == 2
    assert cli.main(["lint", "-", "-"]) == 2


def test_a_line_begins_with_file_and_line(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    cli.main(["lint", "wrong.json", "broken.json"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("wrong.json:4: error: zero_optimization.stagee: ValidationError")
    assert lines[0].endswith("[unknown-key]")
    assert "did you mean zero_optimization.stage?" in lines[0]
    assert any(line.startswith("broken.json:2: error: ") for line in lines)
    assert lines[-1].startswith("2 files: 2 errors")


def test_annotations_of_github(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    cli.main(["lint", "--format", "github", "100%, a:b.json"])
    first = capsys.readouterr().out.splitlines()[0]
    place = "::error file=100%25%2C a%3Ab.json,line=4,title=unknown-key::"
    assert first.startswith(place + "zero_optimization.stagee: ")


def test_what_a_config_says_is_no_command_to_github(capsys, tmp_path):
    """A key could end the line and begin a workflow command of its own."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({**CONFIG, "x\n::set-env name=A::b": 1, "\r::stop::": 1}))
    cli.main(["lint", "--format", "github", str(path)])
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("::warning ", "::notice ")) for line in lines)


def sarif(capsys, *names):
    cli.main(["lint", "--format", "sarif", *names])
    return json.loads(capsys.readouterr().out)


def test_sarif_is_accepted_by_the_standard_s_model(files, monkeypatch, capsys):
    """pydantic-sarif is generated from the schema of SARIF 2.1.0."""
    model = pytest.importorskip("pydantic_sarif.model")
    accept = model.StaticAnalysisResultsFormatSarifVersion210JsonSchema
    monkeypatch.chdir(files)
    names = ["good.json", "wrong.json", "broken.json", "missing.json", "100%, a:b.json"]
    found = sarif(capsys, *names, *map(str, INVALID[::9]))
    accept(**found)
    results = found["runs"][0]["results"]
    assert {result["level"] for result in results} == {"error", "warning", "note"}
    rules = [rule["id"] for rule in found["runs"][0]["tool"]["driver"]["rules"]]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in results)
    places = [result["locations"][0]["physicalLocation"] for result in results]
    uris = {place["artifactLocation"]["uri"] for place in places}
    assert {"wrong.json", "missing.json", "100%25%2C%20a%3Ab.json", INVALID[0].as_uri()} <= uris
    for key, value in (("level", "fatal"), ("message", 5), ("locations", [{"physical": 1}])):
        spoilt = json.loads(json.dumps(found))
        spoilt["runs"][0]["results"][0][key] = value
        with pytest.raises(ValueError, match="validation error"):
            accept(**spoilt)


def test_a_clean_run_is_sarif_too(files, capsys):
    found = sarif(capsys, str(files / "good.json"))
    assert found["version"] == "2.1.0"
    levels = {result["level"] for result in found["runs"][0]["results"]}
    assert levels <= {"note"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "code"),
    [(json.dumps(CONFIG), 0), ('{"bf16": {"enable": 1}}', 1), ("", 2), ("\0", 2), ("{" * 9999, 2)],
)
def test_standard_input(text, code):
    command = [sys.executable, "-m", "zero_sizer", "lint", "--format", "json", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    (one,) = json.loads(done.stdout)["files"]
    assert one["file"] == "-"
    assert one["readable"] is (code != 2)


def test_standard_input_is_read_within_bounds(monkeypatch):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            assert 0 < size < 10**7
            return b"{" * size

    monkeypatch.setattr(sys, "stdin", type("", (), {"buffer": Endless()}))
    (finding,) = lint("-").findings
    assert "is larger than 256 KiB" in finding.message


def test_in_python_a_mapping_and_many_files(files):
    found = zero_sizer.lint(files / "good.json", {"bf16": {"enable": True}})
    assert not found.valid
    assert [one.is_valid for one in found.files] == [True, False]
    assert {"unknown-key"} <= {f.code for f in found.findings}
    assert "unknown-key" in found._repr_html_()
    assert repr(found).startswith("<LintResult: 2 files: ")
    for wrong in ((), (5,), (None,)):
        with pytest.raises(zero_sizer.JobError):
            zero_sizer.lint(*wrong)
