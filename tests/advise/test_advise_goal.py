"""A goal is met by the fewest nodes that meet it, or missed by what is said."""

import json
from dataclasses import replace
from datetime import date

import pytest
from support.advise_jobs import job_on

from zero_sizer import cli
from zero_sizer.advise.choose import Options, choose
from zero_sizer.advise.curve import run_of
from zero_sizer.advise.fleet import WORTH_IT, fewest_in_time, fleet
from zero_sizer.job.fields import Flags
from zero_sizer.job.goal import goal_of
from zero_sizer.report.fleet import goal_lines

SIZES = 4


@pytest.fixture(scope="module")
def job():
    return job_on("gpt2", "t4", gpus=4, host_memory="64GiB", tokens="10B", checkpointing=False)


def options(job, **wishes):
    goal = goal_of(job.workload, job.cluster, Flags(start=date(2026, 1, 31), rate=0.5, **wishes))
    return Options(train_batch=48, goal=goal)


@pytest.fixture(scope="module")
def runs(job):
    """Nodes -> the run on the best plan there, each size searched alone."""
    found = {}
    for nodes in range(1, SIZES + 1):
        alone = replace(job, cluster=replace(job.cluster, nodes=nodes))
        choice = choose(alone, options(job))
        if choice.winner is not None:
            found[nodes] = choice.run
    return found


@pytest.mark.slow
def test_the_fewest_nodes_in_time_are_the_fewest(job, runs):
    assert len(runs) == 4
    for nodes, run in runs.items():
        wanted = run.days.expected * 1.0001
        answer = fleet(job, options(job, target_days=wanted), max_nodes=SIZES)
        assert answer.is_reached
        fewest = min(n for n, other in runs.items() if other.days.expected <= wanted)
        assert answer.target.nodes == fewest <= nodes
        assert answer.target_run.days.expected <= wanted
        assert answer.target_run.usd == answer.target_run.gpu_hours.map(lambda hours: hours / 2)


@pytest.mark.slow
def test_doublings_and_bisection_find_the_same(job, runs):
    for run in runs.values():
        asked = options(job, target_days=run.days.expected * 1.0001)
        by_all = fleet(job, asked, max_nodes=SIZES).target
        found = fewest_in_time(job, asked, max_nodes=SIZES)
        assert found.plan.nodes == by_all.nodes
        assert found.meets_goal
    assert fewest_in_time(job, options(job), max_nodes=SIZES) is None
    assert fewest_in_time(job, options(job, target_days=1e-3), max_nodes=SIZES) is None


@pytest.mark.slow
def test_a_goal_that_nothing_meets_is_missed_by_the_nearest(job, runs):
    fastest = min(run.days.expected for run in runs.values())
    missed = fleet(job, options(job, target_days=fastest / 2), max_nodes=SIZES)
    assert (missed.is_reached, missed.target) == (False, None)
    assert missed.miss.training.days_over == pytest.approx(fastest / 2, rel=1e-6)
    cheapest = min(run.usd.expected for run in runs.values())
    poor = fleet(job, options(job, target_days=1e5, budget=cheapest / 4), max_nodes=SIZES)
    assert not poor.is_reached
    assert poor.miss.training.usd_over == pytest.approx(cheapest * 3 / 4, rel=1e-6)
    assert poor.miss.training.days_over is None


@pytest.mark.slow
def test_time_and_budget_together(job, runs):
    """A budget that only small clusters keep, a time that only large ones do, and both."""
    usd = {nodes: run.usd.expected for nodes, run in runs.items()}
    small, large = min(runs), max(runs)
    assert usd[small] < usd[large]
    rich = options(job, target_days=runs[large].days.expected * 1.001, budget=usd[large] * 1.001)
    assert fleet(job, rich, max_nodes=SIZES).is_reached
    poor = options(job, target_days=runs[large].days.expected * 1.001, budget=usd[small] * 1.001)
    assert not fleet(job, poor, max_nodes=SIZES).is_reached


@pytest.mark.slow
def test_no_gpu_does_more_than_all_of_what_it_can():
    """A 70B model on 24 GPUs has no room for the plans that fit on 64."""
    tight = job_on("llama-2-70b", "a100-80gb", seq_len=2048)
    found = fleet(tight, max_nodes=16)
    assert max(point.gained or 0 for point in found.curve) > 1.005
    assert all(0 < point.efficiency <= 1 for point in found.curve)
    assert any(line.startswith("of the added above 100%") for line in goal_lines(found))


def test_the_curve_is_efficiency_and_what_the_added_bring(job):
    answer = fleet(job, options(job), max_nodes=SIZES)
    first, *others = answer.curve
    assert first.gained is None
    paces = [point.plan.tokens_per_second / point.plan.world_size for point in answer.curve]
    assert max(point.efficiency for point in answer.curve) == 1.0
    before = first
    for point, pace in zip(others, paces[1:], strict=True):
        assert point.efficiency == pytest.approx(pace / max(paces))
        added = point.plan.tokens_per_second - before.plan.tokens_per_second
        fair = before.plan.tokens_per_second / before.plan.world_size
        gpus = point.plan.world_size - before.plan.world_size
        assert point.gained == pytest.approx(added / (fair * gpus))
        assert point.training == run_of(answer.search, point.plan, answer.goal)
        before = point
    doubled = [p for p in others if p.plan.nodes & (p.plan.nodes - 1) == 0]
    poor = [p.plan.nodes for p in doubled if p.gained < WORTH_IT]
    if poor:
        assert answer.stops_helping is not None
        assert answer.stops_helping < min(poor)


@pytest.mark.slow
def test_a_batch_that_runs_out_is_said():
    job = job_on("gpt2", "t4", gpus=8, tokens="1B", checkpointing=False)
    few = fleet(job, Options(train_batch=16), max_nodes=4)
    assert (few.stops_helping, few.batch_ends) == (2, True)


def run(capsys, *arguments):
    code = cli.main([*map(str, arguments)])
    return code, capsys.readouterr()


SHARED = ["--model", "gpt2", "--gpu", "t4", "--gpus-per-node", "4", "--seq-len", "1024"]
SHARED += [
    "--no-checkpointing",
    "--host-memory",
    "64GiB",
    "--train-batch-size",
    "32",
    "--tokens",
    "10B",
]
SIZE = ["size", *SHARED, "--max-nodes", "4"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["choose", *SHARED], SIZE])
@pytest.mark.parametrize(
    ("goal", "code", "words"),
    [
        (["--target-days", "1000", "--budget", "1e6"], 0, ()),
        (["--target-days", "0.01"], 1, ("late", "days more than --target-days 0.01")),
        (["--budget", "5"], 1, ("over budget", "more than --budget 5.00")),
    ],
)
def test_goals_on_the_command_line(capsys, command, goal, code, words):
    exit_code, printed = run(capsys, *command, *goal)
    assert exit_code == code
    text = " ".join(printed.out.split())
    for word in ("10B tokens", "AWS's list for g4dn.xlarge", "days", "USD", *words):
        assert word in text


@pytest.mark.slow
def test_the_answer_as_json_has_it_all(capsys):
    _, printed = run(capsys, "choose", *SHARED, "--target-days", "1000", "--format", "json")
    answer = json.loads(printed.out)
    chosen = answer["chosen"]["training"]
    assert chosen["tokens"] == 10**10
    assert chosen["marks"] == []
    for plan in answer["runners_up"]:
        assert plan["training"]["days"]["expected"] >= chosen["days"]["expected"] * 0.999
    assert answer["fewest_in_time"]["nodes"] == 1
    _, printed = run(capsys, *SIZE, "--target-days", "1000", "--format", "json")
    answer = json.loads(printed.out)
    assert answer["target"]["nodes"] == 1
    assert answer["target_training"]["asked"] == "10B tokens"
    assert [point["nodes"] for point in answer["curve"]] == [1, 2, 4]
    for point, size in zip(
        answer["curve"], (s for s in answer["sizes"] if s["nodes"] != 3), strict=True
    ):
        assert point["training"]["days"]["expected"] == pytest.approx(size["days"], rel=1e-3)
    assert answer["miss"] is None


def test_without_an_amount_there_is_no_money(capsys):
    shared = [a for a in SHARED if a not in ("--tokens", "10B")]
    _, printed = run(capsys, "choose", *shared)
    assert "USD" not in printed.out
    assert run(capsys, "size", *shared, "--budget", "5")[0] == 2
