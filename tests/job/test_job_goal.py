"""A training run's amount, day and price: read alike from flags, YAML and Python, or refused."""

from datetime import date
from math import inf, nan

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer import cli
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.job.goal import goal_of, short
from zero_sizer.job.read import Flags, read
from zero_sizer.units import parse_count

JOB = {
    "model": "gpt2",
    "deepspeed": {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}},
    "cluster": {"gpu": "a100-80gb", "gpus_per_node": 8},
}


def cluster(gpu="a100-80gb", gpus=8):
    return assemble({"gpu": Stated(gpu, "--gpu"), "gpus_per_node": Stated(gpus, "--gpus-per-node")})


def goal(gpu="a100-80gb", gpus=8, **wishes):
    return goal_of(Workload(tokens=10**9), cluster(gpu, gpus), Flags(**wishes))


@pytest.fixture
def job_file(tmp_path):
    def write(**workload):
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump({**JOB, "workload": {"seq_len": 512, **workload}}))
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("300B", 300 * 10**9), ("1.5T", 15 * 10**11), ("4k", 4000), ("2M", 2 * 10**6)),
        *((7, 7), (1e12, 10**12), ("1e12", 10**12), ("300_000", 300_000), ("3,000", 3000)),
        ("0.5 b", 5 * 10**8),
    ],
)
def test_amounts_as_people_write_them(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize(
    "text", ["", "B", "-1", "nan", "inf", nan, inf, -5, "1e999", "3 apples", True, None, "1e31"]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a number|more than there is"):
        parse_count(text)


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_refused(text):
    try:
        found = parse_count(text)
    except ValueError as error:
        found, line = 0, str(error)
    else:
        line = ""
    assert found >= 0
    assert len(line) < 200


@pytest.mark.parametrize(("number", "text"), [(3 * 10**11, "300B"), (2 * 10**6, "2M"), (12, "12")])
def test_amounts_are_written_short(number, text):
    assert short(number) == text
    assert parse_count(text) == number


def test_yaml_flag_and_python_say_the_same(job_file):
    path = job_file(tokens="300B")
    assert read(path).workload.tokens == 300 * 10**9
    assert read(path, Flags(tokens="1B")).workload.tokens == 10**9
    assert read(job_file(tokens=3e11)).workload.tokens == 300 * 10**9
    # a flag replaces what the file counts otherwise
    other = read(path, Flags(samples="2M")).workload
    assert (other.tokens, other.samples) == (None, 2 * 10**6)


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"tokens": -1}, "tokens"),
        ({"tokens": float("nan")}, "tokens"),
        ({"tokens": True}, "tokens"),
        ({"tokens": 10**19}, "tokens"),
        ({"tokens": 5, "samples": 5}, "state the tokens or the samples"),
        ({"epochs": 2}, "epochs of what"),
        ({"tokens": 5, "epochs": 0}, "epochs"),
        ({"tokens": 5, "epochs": [1]}, "epochs"),
    ],
)
def test_nonsense_in_a_file_is_one_line_with_its_place(job_file, workload, words):
    with pytest.raises(InputError) as caught:
        read(job_file(**workload))
    line = str(caught.value)
    assert words in line
    assert "job.yaml:" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("rate", ["0", "-2", "nan", "inf", "free", "1e9", True]),
        ("budget", ["0", "-1", "nan", "1e99", "x"]),
        ("target_days", ["0", "-3", "nan", "inf", "soon"]),
        ("start", ["yesterday", "2026-13-01", "0001-01-01", "20260131", "31.01.2026"]),
    ],
)
def test_nonsense_on_the_command_line_is_one_line(flag, values):
    for value in values:
        with pytest.raises(InputError) as caught:
            goal(**{flag: value})
        assert str(caught.value).startswith(f"--{flag.replace('_', '-')}: ")
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("flag", ["--rate", "--start", "--rates"])
def test_a_price_or_a_day_of_nothing_is_refused(job_file, capsys, flag):
    assert cli.main(["check", job_file(), flag, "2026-01-31" if flag == "--start" else "2"]) == 2
    printed = capsys.readouterr()
    assert flag in printed.err
    assert "--tokens" in printed.err


def test_the_price_is_the_stated_one_else_the_list(tmp_path):
    assert goal(rate="2.49").costs.usd_per_gpu_hour == 2.49
    listed = goal().costs
    assert listed.usd_per_gpu_hour == 3.4309
    assert "AWS's list for p4de.24xlarge" in listed.price_origin
    rates = tmp_path / "rates.yaml"
    rates.write_text("usd_per_gpu_hour:\n  a100-80gb: 1.35\npue: 1.2\n")
    from_file = goal(rates=str(rates)).costs
    assert (from_file.usd_per_gpu_hour, from_file.pue) == (1.35, 1.2)
    assert from_file.price_origin == f"{rates}:2"
    assert from_file.node_share == listed.node_share
    # another GPU than the file's
    assert goal("h100-80gb", rates=str(rates)).costs.usd_per_gpu_hour == 6.88
    rates.write_text("usd_per_gpu_hour: 0.9\n")
    assert goal("rtx-4090", rates=str(rates)).costs.usd_per_gpu_hour == 0.9
    assert goal("rtx-4090").costs.usd_per_gpu_hour is None


def test_the_price_is_of_a_machine_that_holds_the_node():
    assert "Lambda" in goal("h100-80gb", gpus=1).costs.price_origin
    assert "p5.48xlarge" in goal("h100-80gb", gpus=8).costs.price_origin


@pytest.mark.parametrize(
    "text",
    [
        "usd_per_gpu_hour: -1",
        "usd_per_gpu_hour: .nan",
        "usd_per_gpu_hour: {h100-80gb: 0}",
        "usd_per_gpu_hour: {nonesuch: 1}",
        "usd_per_gpu_hour: [1]",
        "pue: 0.5",
        "pue: x",
        "node_watts_over_gpus: 1e9",
        "price: 3",
        "- 3",
        "{",
    ],
)
def test_a_rates_file_that_makes_no_sense_is_one_line(tmp_path, text):
    path = tmp_path / "rates.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        goal(rates=str(path))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_today_is_the_day_unless_stated():
    assert goal().start == date.today()
    assert goal().start_origin == "today"
    assert goal(start="2026-02-01").start == date(2026, 2, 1)
    assert goal_of(Workload(), cluster()) is None
