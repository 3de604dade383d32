"""Cluster sizes: the fewest that fit are the fewest, targets are met, and no node is wasted."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from support.advise_jobs import job_on

from zero_sizer import cli
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.config import default_config
from zero_sizer.advise.emit import chosen_values
from zero_sizer.advise.fleet import WORTH_IT, fleet
from zero_sizer.advise.sizes import node_counts
from zero_sizer.config import document
from zero_sizer.job import read
from zero_sizer.job.fields import Flags

MODEL, GPU = "llama-3.2-3b", "a10g-24gb"
OPTIONS = Options(train_batch=64)


@pytest.fixture(scope="module")
def job():
    return job_on(MODEL, GPU, gpus=2, host_memory="64GiB", checkpointing=True)


@pytest.fixture(scope="module")
def found(job):
    return fleet(job, OPTIONS, max_nodes=8)


def fits(job, strategy, nodes):
    search = search_of(job, OPTIONS)
    return search.best(strategy, nodes) is not None


def test_counts_end_with_the_largest():
    assert node_counts(64) == tuple(range(1, 65))
    assert node_counts(6) == (1, 2, 3, 4, 5, 6)
    assert node_counts(1) == (1,)
    assert node_counts(200)[62:] == (63, 64, 128, 200)


@pytest.mark.slow
def test_the_fewest_nodes_are_the_fewest(job, found):
    """Against trying every size, one by one."""
    search = search_of(job, OPTIONS)
    for row in found.fewest:
        one_by_one = [n for n in range(1, 9) if fits(job, row.strategy, n)]
        if row.plan is None:
            assert not one_by_one
            assert row.loss is not None
        else:
            assert row.plan.nodes == min(one_by_one)
    assert {s.name for s in search.strategies} == {row.strategy.name for row in found.fewest}


@pytest.mark.slow
def test_a_strategy_that_fits_half_a_node_says_so():
    plans = {
        row.strategy.name: row.plan
        for row in fleet(job_on("gpt2", "t4"), Options(train_batch=8), max_nodes=1).fewest
    }
    assert plans["no ZeRO"].world_size == 1


@pytest.mark.slow
def test_a_rank_alone_carries_what_no_whole_node_does():
    """It needs no communicator, and the room that is kept free decides."""
    flags = Flags(
        model="llama-3-8b",
        adapter="r=16,targets=all-linear",
        gpu="rtx-4090",
        gpus_per_node=8,
        seq_len=2048,
        attention="flash",
        host_memory="256GiB",
    )
    wanted = read.without_config(default_config(), flags)
    rows = {fewest: fleet(wanted, max_nodes=2, fewest_of=fewest) for fewest in ("gpus", "nodes")}
    of_gpus, of_nodes = (found.fewest[0] for found in rows.values())
    assert of_nodes.plan is None
    assert (of_gpus.strategy.name, of_gpus.plan.world_size) == ("no ZeRO", 1)
    assert rows["gpus"].smallest.world_size == 1


@pytest.mark.slow
def test_muon_goes_without_reduce_scatter_at_stage_3():
    wanted = job_on("llama-2-13b", "a100-80gb", nodes=2, checkpointing=True)
    muon = {**default_config(), "optimizer": {"type": "Muon", "params": {"lr": 1e-4}}}
    found = fleet(replace(wanted, document=document.from_mapping(muon)), max_nodes=2)
    plans = [row.plan for row in found.fewest if row.plan is not None and row.strategy.stage == 3]
    assert plans
    chosen = document.from_mapping(chosen_values(found.search, plans[0]))
    assert chosen.get("zero_optimization.reduce_scatter") is False


@pytest.mark.slow
def test_the_best_plan_of_a_size_is_the_fastest_of_its_strategies(found):
    for size in found.sizes:
        times = [plan.seconds_per_token for plan in size.by_strategy.values()]
        assert (size.best is None) == (not times)
        if size.best:
            assert size.best.seconds_per_token == min(times)


@pytest.mark.slow
def test_the_target_is_met_by_the_fewest_nodes(job, found):
    speeds = {size.nodes: size.best.tokens_per_second for size in found.sizes if size.best}
    wanted = speeds[4]
    target = fleet(job, OPTIONS, max_nodes=8, tokens_per_second=wanted).target
    assert target is not None
    assert target.tokens_per_second >= wanted
    assert target.nodes <= 4
    assert speeds.get(target.nodes // 2, 0) < wanted
    assert fleet(job, OPTIONS, max_nodes=2, tokens_per_second=1e12).target is None


@pytest.mark.slow
def test_more_nodes_stop_helping_where_the_batch_is_used_up(found):
    """64 samples on 2 GPUs a node: 32 nodes would have one sample a GPU."""
    helped = found.stops_helping
    known = [size for size in found.sizes if size.best]
    for smaller, larger in pairwise(known):
        gain = larger.best.tokens_per_second / smaller.best.tokens_per_second - 1
        if helped is None or larger.nodes <= helped:
            assert gain >= WORTH_IT * (larger.nodes / smaller.nodes - 1)


@pytest.mark.slow
def test_a_batch_that_runs_out_stops_the_growth():
    few = fleet(job_on("gpt2", "t4", gpus=8), Options(train_batch=16), max_nodes=4)
    assert few.stops_helping == 2
    assert [size.nodes for size in few.sizes if size.best] == [1, 2]


def run(capsys, *arguments):
    code = cli.main([*map(str, arguments)])
    return code, capsys.readouterr()


ASKED = ["size", "--model", "gpt2", "--gpu", "t4", "--gpus-per-node", "4", "--seq-len", "1024"]
ASKED += ["--host-memory", "64GiB", "--max-nodes", "2", "--train-batch-size", "8"]


def test_command_prints_table_fewest_and_target(capsys):
    asked = [*ASKED, "--tokens", "1e9", "--target-days", "1"]
    code, printed = run(capsys, *asked)
    assert code == 0
    for words in ("the fewest GPUs: 1 node (1 GPU)", "tokens/s", "days", "no ZeRO", "nodes"):
        assert words in printed.out


def test_the_table_has_a_row_for_a_part_of_a_node(capsys):
    """Behind the answer that the first lines give, with the plan that is meant."""
    answer = json.loads(run(capsys, *ASKED, "--format", "json")[1].out)
    smallest = min((f["plan"] for f in answer["fewest"]), key=lambda p: p["world_size"])
    rows = [line.split() for line in run(capsys, *ASKED)[1].out.splitlines()]
    (head,) = (i for i, row in enumerate(rows) if row[:3] == ["nodes", "GPUs", "best"])
    assert smallest["world_size"] == 1
    assert [row[:2] for row in rows[head + 1 : head + 4]] == [["1", "1"], ["1", "4"], ["2", "8"]]


@pytest.mark.slow
@pytest.mark.parametrize("command", [["size", "--max-nodes", "1"], ["choose"]])
def test_a_doubt_is_the_first_line(capsys, command):
    """A plan may hold more images than nobody stated; what is chosen comes after it."""
    job = ["--model", "llava-1.5-7b", "--gpu", "h100-80gb", "--gpus-per-node", "4"]
    code, printed = run(capsys, *command, *job, "--seq-len", "2048")
    assert code == 3
    first, *others = printed.out.splitlines()
    assert first.startswith("COULD NOT TELL   it fits with up to ")
    assert [o for o in others if o.startswith(("the fewest GPUs:", "CHOSEN:"))]
    markdown = run(capsys, *command, *job, "--seq-len", "2048", "--format", "markdown")[1].out
    assert "COULD NOT TELL" in "".join(markdown.splitlines()[:3])


def test_command_as_json(capsys):
    code, printed = run(capsys, *ASKED, "--format", "json", "--target-tokens-per-second", "1e3")
    answer = json.loads(printed.out)
    assert code == 0
    assert [size["nodes"] for size in answer["sizes"]] == [1, 2]
    assert answer["target"]["tokens_per_second"] >= 1e3


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (["--target-tokens-per-second", "1e15"], 1),
        (["--target-days", "3"], 2),
        (["--target-days", "3", "--tokens", "1e9", "--target-tokens-per-second", "5"], 2),
    ],
)
def test_command_exit_codes(capsys, extra, code):
    assert run(capsys, *ASKED, *extra)[0] == code


def test_a_batch_that_cannot_be_split_hides_no_shortage():
    """1024 samples on up to 256 nodes of 8: what is said is of the largest size that takes them."""
    wanted = job_on("llama-3-8b", "a10g-24gb", host_memory="64GiB", checkpointing=True)
    found = fleet(wanted, Options(train_batch=64), max_nodes=16)
    lost = [row.loss for row in found.fewest if row.loss and not row.loss.refusals]
    assert lost
    for loss in lost:
        assert loss.shortfalls, loss.reason
        assert loss.closest.nodes == 8


def test_the_fewest_nodes_are_whole_nodes():
    wanted = job_on("gpt2", "t4", gpus=4)
    by_gpus, by_nodes = (
        fleet(wanted, Options(train_batch=8), max_nodes=1, fewest_of=what).smallest
        for what in ("gpus", "nodes")
    )
    assert by_gpus.world_size == 1
    assert by_nodes.world_size == 4
    assert by_nodes.seconds_per_token <= by_gpus.seconds_per_token


@pytest.mark.slow
def test_the_first_lines_say_the_batch_and_what_is_assumed(capsys):
    asked = [a for a in ASKED if a not in ("--train-batch-size", "8")]
    for extra, words in (([], "batch: free"), (["--train-batch-size", "8"], "batch: held at 8")):
        printed = run(capsys, *asked, *extra)[1].out
        head = " ".join(printed.split("\n\n")[0].split())
        for word in (words, "1024 tokens a sample", "GB/s inside a node", "float16"):
            assert word in head


def test_rows_say_what_they_change(tmp_path, capsys):
    """Of a config that says a bucket and a batch: nothing else is called the user's."""
    wrote = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 200_000_000},
        "train_batch_size": 8,
    }
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(wrote))
    words = (
        "--model gpt2 --gpu t4 --gpus-per-node 2 --host-memory 64GiB --seq-len 256 --max-nodes 2"
    )
    cli.main(["size", str(config), *words.split(), "--format", "json"])
    answer = json.loads(capsys.readouterr().out)
    rows = [
        row for row in (*answer["fewest"], *answer["sizes"]) if row.get("plan", row.get("best"))
    ]
    assert rows
    for row in rows:
        plan = row.get("plan") or row["best"]
        changed = {edit["key"]: edit for edit in row["changes"]}
        assert ("zero_optimization.stage" in changed) == (plan["stage"] != 3)
        for key in plan["buckets"]:
            assert f"zero_optimization.{key}" in changed
        before = {
            key: edit["before"] for key, edit in changed.items() if edit["before"] is not None
        }
        assert (
            before.items()
            <= {
                "zero_optimization.stage": 3,
                "zero_optimization.reduce_bucket_size": 200_000_000,
                "train_batch_size": 8,
            }.items()
        )
