"""Time, energy and money follow from the step's time by plain arithmetic, done here again."""

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.advise_jobs import job_on

from zero_sizer import cli, sizing
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.hardware import costs
from zero_sizer.job.fields import Flags
from zero_sizer.job.goal import goal_of
from zero_sizer.speed import estimate
from zero_sizer.speed.training import Training, model_flops, of_sizing

DAY = date(2026, 1, 31)
CHECK = ["check", "deepspeed_configs/demo.json", "--model", "qwen2.5-7b", "--gpus-per-node", "8"]
CHECK += ["--seq-len", "4096", "--checkpointing", "--attention", "flash"]


@pytest.fixture(scope="module")
def sized():
    return sizing.size(job_on("llama-3.2-1b", "h100-80gb", nodes=2, micro_batch=4))


def run_on(sized, wishes=None, **amount) -> Training:
    workload = Workload(**{"tokens": 10**11, **amount})
    goal = goal_of(workload, sized.job.cluster, wishes or Flags(start=DAY, rate=2.5))
    return of_sizing(sized, goal)


def test_figures_follow_from_the_step(sized):
    run, speed = run_on(sized), estimate(sized)
    samples = 4 * 16
    steps = -(-(10**11) // (samples * 2048))
    assert run.steps == steps
    for case in ("low", "expected", "high"):
        seconds = steps * speed["step_seconds"][case]
        hours = seconds / 3600 * 16
        assert getattr(run.days, case) == pytest.approx(seconds / 86400)
        assert getattr(run.usd, case) == pytest.approx(hours * 2.5)
        pue, node = costs.pue().value, costs.node_share().value
        assert getattr(run.kwh, case) == pytest.approx(hours * 0.7 * pue * node)
        rate = speed["tokens_per_second_per_gpu"][case]
        assert getattr(run.tokens_per_second, case) == pytest.approx(16 * rate)
    assert run.finish[1] == DAY + timedelta(days=run.days.expected)


@pytest.mark.parametrize("name", ["llama-3-8b", "gpt2-xl", "mistral-7b"])
def test_model_flops_are_those_of_palm(name):
    """6 N + 12 L H Q T of arXiv:2204.02311, with N the parameters that are multiplied."""
    plan = sizing.size(job_on(name, "h100-80gb", seq_len=1024)).plan
    arch = plan.model.arch
    tied = arch.tied_embeddings
    embedded = sum(t.numel for t in plan.model.parameters if "Embedding" in t.module_type)
    multiplied = plan.model.num_params - embedded + (arch.vocab * arch.hidden if tied else 0)
    attention = 12 * arch.num_layers * arch.hidden * 1024
    assert model_flops(plan) == pytest.approx(6 * multiplied + attention, rel=0.002)


def test_mfu_is_the_share_of_the_peak(sized):
    run = run_on(sized)
    per_gpu = run.tokens_per_second.expected / 16
    assert run.mfu.expected == pytest.approx(per_gpu * model_flops(sized.plan) / 989.4e12)
    assert 0 < run.mfu.low < run.mfu.expected < run.mfu.high < 1


def test_recomputation_is_no_work_of_the_model():
    jobs = [job_on("gpt2", "h100-80gb", checkpointing=on, micro_batch=2) for on in (False, True)]
    without, again = (sizing.size(job) for job in jobs)
    assert model_flops(without.plan) == model_flops(again.plan)
    assert run_on(again).mfu.expected < run_on(without).mfu.expected


def test_samples_and_epochs_are_tokens(sized):
    by_tokens = run_on(sized, tokens=3 * 2048 * 10**6)
    by_samples = run_on(sized, tokens=None, samples=2 * 10**6, epochs=1.5)
    assert by_samples.tokens == by_tokens.tokens
    assert by_samples.days == by_tokens.days


@given(
    tokens=st.integers(1, 10**18),
    epochs=st.floats(1e-3, 1e6),
    rate=st.floats(1e-6, 1e4),
    day=st.dates(date(1970, 1, 1), date(2999, 12, 31)),
)
@settings(max_examples=60, deadline=None)
def test_any_run_has_finite_figures_in_order(sized, tokens, epochs, rate, day):
    run = run_on(sized, Flags(start=day, rate=rate), tokens=tokens, epochs=epochs)
    for found in (run.days, run.usd, run.kwh, run.gpu_hours, run.tokens_per_second, run.mfu):
        assert 0 < found.low <= found.expected <= found.high < 1e40
    ends = [end for end in run.finish if end is not None]
    assert ends == sorted(ends)
    assert all(end >= day for end in ends)


def test_a_goal_that_is_missed_says_by_how_much(sized):
    run = run_on(sized)
    days, usd = run.days.expected, run.usd.expected
    wishes = Flags(start=DAY, rate=2.5, target_days=days / 2, budget=usd - 10)
    late = run_on(sized, wishes)
    assert late.marks == ("late", "over budget")
    assert late.days_over == pytest.approx(days / 2)
    assert late.usd_over == pytest.approx(10)
    met = run_on(sized, replace(wishes, target_days=days, budget=usd))
    assert (met.marks, met.days_over, met.usd_over) == ((), None, None)


def test_without_a_price_there_is_none_and_no_budget():
    sized = sizing.size(job_on("gpt2", "rtx-4090", gpus=1, micro_batch=1))
    with pytest.raises(InputError, match="no rate known for rtx-4090: give --rate"):
        run_on(sized, Flags(budget=1e9))
    run = run_on(sized, Flags())
    assert run.usd is None
    assert any("no rate known for rtx-4090: give --rate" in line for line in run.assumptions)


def said(capsys, *arguments):
    code = cli.main([*CHECK, *arguments])
    return code, capsys.readouterr()


def test_check_says_when_and_how_much(capsys):
    asked = ["--gpu", "h100-80gb", "--tokens", "300B", "--start", "2026-01-31"]
    code, printed = said(capsys, *asked)
    assert code == 0
    text = " ".join(printed.out.split())
    for word in ("300B tokens (--tokens)", "done on 2026-", "MFU", "kWh", "$6.88 a GPU-hour"):
        assert word in text
    for word in ("AWS's list for p5.48xlarge", "seen in 2025-11", "700 W", "start 2026-01-31"):
        assert word in text
    answer = json.loads(said(capsys, *asked, "--format", "json")[1].out)["training"]
    assert answer["tokens"] == 300 * 10**9
    assert answer["finish"]["expected"] in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [["--gpu-memory", "8GiB"], ["--seq-len", "5000000"], ["--gpu-memory", "20GiB"]]
)
def test_what_cannot_run_has_no_date_and_no_price(capsys, change):
    asked = ["--gpu", "h100-80gb", "--tokens", "300B", *change]
    code, printed = said(capsys, *asked)
    assert code == 1
    for word in ("done on", "kWh", "$"):
        assert word not in printed.out
    assert "training" not in json.loads(said(capsys, *asked, "--format", "json")[1].out)


def test_without_an_amount_nothing_is_added(capsys):
    _, printed = said(capsys, "--gpu", "h100-80gb", "--format", "json")
    assert "training" not in json.loads(printed.out)
