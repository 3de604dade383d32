"""What is chosen fits, is fastest by prediction, and is a config that DeepSpeed takes."""

import json
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.advise_jobs import job_on

from zero_sizer import cli, sizing
from zero_sizer.advise.choose import Options, choose, search_of
from zero_sizer.advise.walk import WORTH_IT
from zero_sizer.config import document
from zero_sizer.errors import InputError
from zero_sizer.findings import Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.ledger.capacity import Fit, capacities, fit
from zero_sizer.ledger.entry import Category
from zero_sizer.plan import sizes
from zero_sizer.units import GIB, round_up

MODELS = ("gpt2", "tinyllama-1.1b", "llama-3.2-3b")
GPUS = ("t4", "a10g-24gb", "a100-40gb", "h100-80gb")
SMALL_BATCH = Options(train_batch=64)  # few divisors: everything can be tried


def plans(search, nodes=1):
    return [plan for s in search.strategies for plan in search.all_fitting(s, nodes)]


@pytest.mark.slow
@pytest.mark.parametrize(  # random problems, of every size: benchmarks/search.py
    ("model", "gpu", "gpus", "nodes"),
    [
        ("gpt2", "t4", 4, 1),
        ("gpt2", "a10g-24gb", 8, 2),
        ("tinyllama-1.1b", "a100-40gb", 1, 2),
        ("llama-3.2-3b", "h100-80gb", 2, 1),
    ],
)
def test_nothing_that_fits_is_faster_than_the_chosen(model, gpu, gpus, nodes):
    """The search's shortcuts against trying every plan."""
    wanted = job_on(model, gpu, nodes=nodes, gpus=gpus)
    choice = choose(wanted, SMALL_BATCH)
    everything = plans(choice.search, nodes)
    fastest = min((plan.seconds_per_token for plan in everything), default=None)
    assert (choice.winner is None) == (fastest is None)
    if choice.winner is not None:
        assert choice.winner.seconds_per_token * WORTH_IT <= fastest


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS[:2])
def test_a_sweep_sees_what_sizing_sees(model):
    """Peaks and times that the search keeps by the values read, against whole plans one by one."""
    wanted = job_on(model, "a100-40gb", nvme="7TB", nodes=2)
    search = search_of(wanted, SMALL_BATCH)
    for strategy in search.strategies:
        for plan in islice(search.all_fitting(strategy, 2), 0, None, 37):
            sized = sizing.size(search.job_of(plan))
            for device in Device:
                assert sized.peaks[device].num_bytes == plan.uses[device].num_bytes, plan
            assert sized.plan == search.plan(plan)


@pytest.mark.slow
@settings(max_examples=6)
@given(st.sampled_from(MODELS), st.sampled_from(GPUS), st.integers(4, 200), st.integers(1, 400))
def test_more_host_memory_removes_no_plan(model, gpu, host_gib, more):
    before, after = (
        search_of(job_on(model, gpu, host_memory=f"{size}GiB"), SMALL_BATCH)
        for size in (host_gib, host_gib + more)
    )
    for strategy in before.strategies:
        small, large = before.best(strategy, 1), after.best(strategy, 1)
        if small is not None:
            assert large is not None
            assert large.seconds_per_token <= small.seconds_per_token


STATES = {Category.MASTER_WEIGHTS, Category.OPTIMIZER_STATES, Category.GRADIENTS}


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 8]))
def test_more_nodes_never_raise_model_states_beyond_padding(stage, nodes, more, gpus):
    """A rank's share shrinks; padding each tensor or group to the ranks is all that may grow."""

    def sized(count):
        wanted = job_on("gpt2", "a100-40gb", nodes=count, gpus=gpus, checkpointing=True)
        values = {**wanted.document.values, "zero_optimization": {"stage": stage}}
        values["train_micro_batch_size_per_gpu"] = 1
        return sizing.size(replace(wanted, document=document.from_mapping(values)))

    few, many = sized(nodes), sized(nodes + more)
    ranks = many.plan.dp_world_size
    tensors = len(sizes.trainable(many.plan))
    groups = len(sizes.groups(many.plan))
    padding = 16 * (tensors + 2 * groups)  # bytes of state an element, rounded up
    if stage < 3:  # gradients are kept whole: those that a partition cuts at its two ends too
        padding += 2 * groups * sizes.largest_tensor(many.plan) * many.plan.itemsize

    def states(found):
        live = [a for a in found.allocations if a.device is Device.GPU and a.category in STATES]
        owned = [a for a in live if a.name not in _WHOLE]
        return sum(a.num_bytes for a in owned)

    assert states(many) <= states(few) + padding

    def explained(found):  # buffers that are padded to, or laid out by, the ranks
        names = (Category.COMMUNICATION, Category.PARAMETERS)
        return sum(a.num_bytes for a in found.allocations if a.category in names)

    grown = many.peaks[Device.GPU].num_bytes - few.peaks[Device.GPU].num_bytes
    gathered = sum(round_up(n, ranks) - n for n in sizes.trainable(many.plan)) * 2 * 2
    assert grown <= max(0, explained(many) - explained(few)) + padding + gathered


_WHOLE = ("gradient_being_produced",)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "gpu"), [("gpt2", "a10g-24gb"), ("llama-3.2-3b", "a100-80gb")])
def test_every_emitted_config_is_clean_and_fits(model, gpu):
    wanted = job_on(model, gpu, nodes=2, nvme="7TB")
    choice = choose(wanted)
    for plan in choice.ranked:
        sized = sizing.size(choice.search.job_of(plan))
        bad = {f.code for f in sized.findings if f.severity is not Severity.NOTE}
        assert not bad, (plan.strategy.name, bad)
        assert sized.verdict is sizing.Verdict.FITS


@pytest.mark.slow
def test_deepspeed_takes_every_emitted_config(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    choice = choose(job_on("llama-3.2-3b", "a100-40gb", nodes=2, nvme="7TB"))
    assert len(choice.ranked) >= 10
    for plan in choice.ranked:
        values = dict(choice.search.job_of(plan).document.values)
        config = DeepSpeedConfig(json.loads(json.dumps(values)))
        assert config.zero_config.stage == plan.strategy.stage
        assert config.train_micro_batch_size_per_gpu == plan.micro_batch
        assert config.gradient_accumulation_steps == plan.grad_accum


@pytest.mark.slow
def test_the_margin_is_left_free():
    wanted = job_on("gpt2", "t4")
    for margin in (0.0, 0.2):
        search = search_of(wanted, Options(train_batch=64, margin=margin))
        room = capacities(wanted.cluster)[Device.GPU]
        limit = room.num_bytes * (1 - margin) - room.outside.high
        uses = [plan.uses[Device.GPU].num_bytes for plan in plans(search)]
        assert uses
        assert max(uses) <= limit


def test_losers_name_device_entry_and_bytes():
    choice = choose(job_on("llama-3-8b", "a10g-24gb", host_memory="64GiB"))
    lost = {loss.strategy.name: loss for loss in choice.losses}
    short = lost["no ZeRO"].shortfalls[0]
    assert short.device is Device.GPU
    assert short.missing_bytes > 50 * GIB  # 16 bytes an element of states, 8e9 elements, 24 GB
    assert lost["no ZeRO"].entries[0].name == "master_weights"
    on_host = lost["ZeRO-2, optimizer on host"].shortfalls
    assert Device.HOST in {s.device for s in on_host}


@pytest.mark.slow
def test_offload_is_no_answer_where_host_memory_is_unknown():
    choice = choose(job_on("llama-3.2-3b", "a100-40gb", host_memory=None))
    assert not any("host" in plan.strategy.name for plan in choice.ranked)
    unknown = [s for loss in choice.losses for s in loss.shortfalls if s.missing_bytes is None]
    assert {s.device for s in unknown} == {Device.HOST}


CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-4, "betas": [0.9, 0.95]}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}},
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 4,
    "gradient_clipping": 0.5,
    "steps_per_print": 20,
}


def run(capsys, *arguments):
    code = cli.main([*map(str, arguments)])
    return code, capsys.readouterr()


CLUSTER = [
    "--gpus-per-node",
    "8",
    "--gpu",
    "a100-40gb",
    "--host-memory",
    "1TiB",
    "--seq-len",
    "2048",
]


def test_what_the_config_fixes_is_kept_and_the_train_batch_too(tmp_path, capsys):
    path, out = tmp_path / "ds.json", tmp_path / "chosen.json"
    path.write_text(json.dumps(CONFIG))
    code, printed = run(capsys, "choose", path, "--model", "llama-3.2-3b", *CLUSTER, "--emit", out)
    shown = printed.out
    assert code == 0
    chosen = json.loads(out.read_text())
    for key in ("bf16", "optimizer", "scheduler", "gradient_clipping", "steps_per_print"):
        assert chosen[key] == CONFIG[key]
    steps = chosen["train_micro_batch_size_per_gpu"] * chosen["gradient_accumulation_steps"]
    assert steps == 2 * 4
    if chosen["zero_optimization"]["stage"] == 3:
        assert chosen["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    with_or_without = "--checkpointing" if "with checkpointing" in shown else "--no-checkpointing"
    checked = ["check", out, "--model", "llama-3.2-3b", *CLUSTER, with_or_without]
    assert run(capsys, *checked)[0] == 0


def test_json_names_plans_losers_and_speed(capsys):
    arguments = ["choose", "--model", "llama-3.2-3b", *CLUSTER, "--format", "json"]
    code, printed = run(capsys, *arguments)
    found = json.loads(printed.out)
    assert code == 0
    times = [found["chosen"], *found["runners_up"]]
    per_token = [1 / plan["tokens_per_second"] for plan in times]
    assert per_token == sorted(per_token)
    low, expected, high = (
        found["chosen"]["speed"]["step_seconds"][k] for k in ("low", "expected", "high")
    )
    assert low < expected < high
    assert found["config"]["zero_optimization"]["stage"] == found["chosen"]["stage"]


def test_text_says_why_and_what_to_do(capsys):
    code, printed = run(capsys, "choose", "--model", "llama-3-8b", *CLUSTER)
    assert code == 0
    for words in ("CHOSEN", "why not", "no ZeRO", "where the step's time goes", "batch: free"):
        assert words in printed.out


@pytest.mark.slow
def test_exit_codes(tmp_path, capsys):
    none = ["choose", "--model", "llama-3-8b", "--gpu", "t4", "--host-memory", "8GiB"]
    code, printed = run(capsys, *none)
    assert code == 1
    assert "NOTHING FITS" in printed.out
    assert run(capsys, *none, "--emit", tmp_path / "x.json")[0] == 1
    assert not (tmp_path / "x.json").exists()
    code, printed = run(capsys, "choose", "--model", "gpt2", "--gpu-memory", "24GiB")
    assert code == 2
    assert "--gpu" in printed.err
    assert run(capsys, "choose", "--gpu", "t4")[0] == 2  # no model
    unwritable = tmp_path / "no" / "x.json"
    assert run(capsys, "choose", "--model", "gpt2", *CLUSTER, "--emit", unwritable)[0] == 2


def test_a_train_batch_that_cannot_be_split_is_said():
    choice = choose(job_on("gpt2", "a100-40gb", gpus=8), Options(train_batch=12))
    assert not choice.ranked
    assert all("cannot be split over 8 GPUs" in loss.reason for loss in choice.losses[:1])


@pytest.mark.parametrize(
    ("gpu", "dtype"), [("v100-16gb", "fp16"), ("a100-40gb", "bf16"), ("p40-24gb", "fp32")]
)
def test_without_a_config_the_dtype_suits_the_gpu(capsys, tmp_path, gpu, dtype):
    path = tmp_path / "ds.json"
    asked = ["choose", "--model", "gpt2", "--gpu", gpu, "--seq-len", "512", "--emit", str(path)]
    assert cli.main([*asked, "--host-memory", "64GiB", "--train-batch-size", "8"]) == 0
    written = json.loads(path.read_text())
    on = {name for name in ("fp16", "bf16") if written.get(name, {}).get("enabled")}
    assert on == {dtype} - {"fp32"}
    said = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[dtype]
    assert f"AdamW in {said}; --precision" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gpu", "flags", "said"),
    [
        ("a100-40gb", [], "bfloat16 (assumed: --precision)"),
        ("v100-16gb", [], "float16 (assumed: --precision)"),
        ("a100-40gb", ["--precision", "fp32"], "float32,"),
    ],
)
def test_what_a_config_leaves_to_the_trainer_is_the_gpus_usual_precision(
    capsys, tmp_path, gpu, flags, said
):
    """Hugging Face's configs say "auto", and nobody trains in fp32 there: a tenth of the speed."""
    path = tmp_path / "ds.json"
    path.write_text('{"bf16": {"enabled": "auto"}, "fp16": {"enabled": "auto"}}')
    asked = ["choose", str(path), "--model", "gpt2", "--gpu", gpu, "--seq-len", "512"]
    assert cli.main([*asked, "--host-memory", "64GiB", "--train-batch-size", "8", *flags]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_what_the_rules_say_is_not_counted_is_a_warning_of_the_choice():
    sdpa = choose(job_on("gpt2", "v100-16gb", precision="bf16"), SMALL_BATCH)
    assert "sdpa-not-modelled" in {finding.code for finding in sdpa.search.warnings}
    flash = choose(job_on("gpt2", "a100-40gb"), SMALL_BATCH)
    assert not {f.code for f in flash.search.warnings if f.code.endswith("not-modelled")}


def test_flags_about_the_batch_hold_beside_a_train_batch():
    wanted = job_on("gpt2", "a100-40gb", grad_accum=2)
    choice = choose(wanted, Options(train_batch=64))
    assert {(plan.micro_batch, plan.grad_accum) for plan in choice.ranked} == {(4, 2)}
    choice = choose(job_on("gpt2", "a100-40gb", micro_batch=3, grad_accum=2), SMALL_BATCH)
    assert not choice.ranked
    assert (
        "(micro batch 3, 2 gradient accumulation steps) cannot be split" in choice.losses[0].reason
    )


def test_an_optimizer_that_cannot_be_offloaded_loses_for_that_reason():
    values = {"bf16": {"enabled": True}, "optimizer": {"type": "Muon", "params": {"lr": 1e-3}}}
    flags = Flags(model="gpt2", gpu="a100-40gb", host_memory="1TiB", seq_len=1024)
    choice = choose(read.without_config(values, flags), SMALL_BATCH)
    for loss in choice.losses:
        for finding in loss.refusals:
            assert finding.message
    assert choice.winner is not None


def test_a_gpu_is_needed():
    with pytest.raises(InputError, match="no GPU"):
        choose(read.without_config({}, Flags(model="gpt2")))


@pytest.mark.slow
def test_limits_and_fit_agree():
    """What the search calls fitting, ``check`` calls fitting."""
    wanted = job_on("gpt2", "t4")
    search = search_of(wanted, SMALL_BATCH)
    room = capacities(wanted.cluster)
    for plan in islice(plans(search), 0, None, 29):
        sized = sizing.size(search.job_of(plan))
        for device in (Device.GPU, Device.HOST):
            peak, beside = sized.peaks[device].num_bytes, sized.needs[device].room
            assert fit(peak, room[device], beside) is Fit.YES
