"""Checkpointing of some blocks, or with inputs elsewhere: said, read, and held to the profiles."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zero_sizer import activations, models
from zero_sizer.activations import checkpointing as checkpoints
from zero_sizer.activations.levels import remaining
from zero_sizer.cli import main
from zero_sizer.config.workload import Checkpointing
from zero_sizer.job import values

CONFIG = {
    "train_micro_batch_size_per_gpu": 2,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    "zero_optimization": {"stage": 2},
}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (True, True),
        (False, False),
        ("every-2", Checkpointing(every=2)),
        ("first-8", Checkpointing(first=8)),
        ("offload", Checkpointing(offload=True)),
        ("every-3, offload,reentrant", Checkpointing(every=3, offload=True, by="reentrant")),
        ("deepspeed", Checkpointing(by="deepspeed")),
    ],
)
def test_words_say_what_is_meant(said, meant):
    assert values.checkpointing(said) == meant
    if isinstance(meant, Checkpointing):
        assert values.checkpointing(meant.about) == meant


@pytest.mark.parametrize(
    "said",
    [
        *("every-0", "every", "every-x", "first--1", "often", "", "every-2,every-3", 2, None),
        *("every-2,first-2", "offload,deepspeed", "reentrant,deepspeed", "every-99999999999"),
    ],
)
def test_anything_else_is_refused(said):
    with pytest.raises(ValueError, match=r"\S"):
        values.checkpointing(said)


def _peaks(capsys, tmp_path, said, *flags):
    path = tmp_path / "job.yaml"
    job = {
        "model": "llama-2-7b",
        "deepspeed": CONFIG,
        "cluster": {"gpus_per_node": 8, "gpu": "a100-80gb"},
        "workload": {"seq_len": 2048, "attention": "flash", "checkpointing": said},
    }
    path.write_text(json.dumps({k: v for k, v in job.items() if v is not None}))
    main(["check", str(path), "--format", "json", *flags])
    answer = json.loads(capsys.readouterr().out)
    return answer["phases"]["gpu"], answer["job"]["checkpointing"]


def test_flag_and_file_say_the_same_and_the_flag_wins(capsys, tmp_path):
    every_2, setting = _peaks(capsys, tmp_path, "every-2")
    assert setting["value"] == "every-2"
    how = ("--checkpointing-how", "every-2")
    assert _peaks(capsys, tmp_path, None, *how)[0] == every_2
    assert _peaks(capsys, tmp_path, False, *how)[0] == every_2
    every, none = (_peaks(capsys, tmp_path, said)[0] for said in (True, False))
    assert every["backward"] < every_2["backward"] < none["backward"]
    assert _peaks(capsys, tmp_path, "every-2", "--no-checkpointing")[0] == none
    assert _peaks(capsys, tmp_path, "every-2", "--checkpointing")[0] == every


def test_a_wrong_word_is_one_line(capsys, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"model": "gpt2", "deepspeed": CONFIG, "workload": {
        "checkpointing": "every-two"}}))  # fmt: skip
    assert main(["check", str(path)]) == 2
    error = capsys.readouterr().err
    assert "every-two" in error
    assert "every-K" in error
    assert error.count("\n") == 1


MODELS = ("llama-2-7b", "gpt2", "qwen3-4b", "t5-3b", "mixtral-8x7b", "gemma-2-9b")


def _steps(name, variant, b, s):
    profile = activations.load(models.load(name))
    attention = profile.attention_for(variant, "eager" if name == "t5-3b" else "flash")
    return [
        profile.evaluate(variant, attention, b, s, checkpointing=checkpointing)
        for checkpointing in (False, True)
    ]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(MODELS),
    variant=st.sampled_from(["bf16", "autocast"]),
    b=st.integers(1, 4),
    s=st.sampled_from([64, 512, 1024]),
    how=st.builds(Checkpointing, every=st.integers(1, 9))
    | st.builds(Checkpointing, first=st.integers(1, 9)),
)
def test_what_is_made_of_two_profiles_lies_between_them(name, variant, b, s, how):
    plain, every = _steps(name, variant, b, s)
    mixed = checkpoints.mixed(every, plain, how.recomputes)
    assert remaining(mixed) == remaining(every)
    blocks = [b for part in mixed.parts if part.blocks for b in range(part.count)]
    assert len(blocks) == sum(models.load(name).arch.__dict__[k] or 0 for k in
                              ("num_layers", "decoder_layers"))  # fmt: skip
    assert min(every.saved, plain.saved) <= mixed.saved <= max(every.saved, plain.saved)
    if how.takes_all:
        assert mixed.saved == every.saved


def test_each_block_left_out_adds_what_it_saves():
    """A block that is not recomputed keeps what its plain profile saves, instead of its input."""
    plain, every = _steps("llama-2-7b", "bf16", 2, 512)
    hidden = 2 * 512 * 4096 * 2
    saved = [
        checkpoints.mixed(every, plain, Checkpointing(first=first).recomputes).saved
        for first in range(1, 33)
    ]
    differences = {a - b for a, b in pairwise(saved)}
    assert len(differences) == 1
    block = next(part for part in plain.parts if part.blocks and part.count > 1)
    assert differences == {block.forward.end - hidden}


def _check(capsys, tmp_path, how, section, model="llama-2-7b", **workload):
    path = tmp_path / "job.yaml"
    job = {
        "model": model,
        "deepspeed": {**CONFIG, "activation_checkpointing": section},
        "cluster": {"gpus_per_node": 8, "gpu": "a100-80gb", "host_memory": "1TiB"},
        "workload": {"seq_len": 2048, "attention": "flash", "checkpointing": how, **workload},
    }
    path.write_text(json.dumps(job))
    code = main(["check", str(path), "--format", "json"])
    answer = json.loads(capsys.readouterr().out)
    return answer, {f["code"]: f for f in answer["findings"]}, code


INPUT = 2 * 2048 * 4096 * 2  # bytes of a block's input: micro batch, tokens, width, bf16


def test_a_section_that_nobody_calls_changes_nothing_and_is_said(capsys, tmp_path):
    on = {"cpu_checkpointing": True, "partition_activations": True}
    with_section, findings, _ = _check(capsys, tmp_path, True, on)
    without, _, _ = _check(capsys, tmp_path, True, {})
    assert with_section["phases"] == without["phases"]
    assert findings["checkpointing-section"]["severity"] == "warning"
    assert "--checkpointing-how deepspeed" in findings["checkpointing-section"]["remedy"]


def test_cpu_checkpointing_moves_all_but_the_two_newest_inputs(capsys, tmp_path):
    plain, _, _ = _check(capsys, tmp_path, "deepspeed", {})
    moved, findings, _ = _check(capsys, tmp_path, "deepspeed", {"cpu_checkpointing": True})
    assert "checkpointing-section" not in findings
    gpu, host = ([a["phases"][d]["forward"] for a in (plain, moved)] for d in ("gpu", "host"))
    assert gpu[0] - gpu[1] == 30 * INPUT
    assert host[1] - host[0] == 8 * 31 * INPUT  # eight ranks a node
    (pool,) = [a for a in moved["allocations"] if a["name"] == "cpu_checkpointing_pool"]
    assert pool["pinned"]
    assert "activation_checkpointing.cpu_checkpointing" in pool["keys"]


def test_transformers_offload_keeps_one_pinned_input_a_block(capsys, tmp_path):
    plain, _, _ = _check(capsys, tmp_path, True, {})
    moved, _, _ = _check(capsys, tmp_path, "offload", {})
    gpu, host = ([a["phases"][d]["forward"] for a in (plain, moved)] for d in ("gpu", "host"))
    assert gpu[0] - gpu[1] == 32 * INPUT
    assert host[1] - host[0] == 8 * 32 * INPUT
    assert moved["phases"]["host"]["step"] == plain["phases"]["host"]["step"]


def test_room_for_too_few_contiguous_checkpoints_is_an_error(capsys, tmp_path):
    section = {"partition_activations": True, "contiguous_memory_optimization": True}
    few = {**section, "number_checkpoints": 31}
    _, findings, code = _check(capsys, tmp_path, "deepspeed", few)
    assert findings["number-checkpoints"]["severity"] == "error"
    assert "32" in findings["number-checkpoints"]["remedy"]
    assert code == 1
    more, findings, _ = _check(capsys, tmp_path, "deepspeed", {**few, "number_checkpoints": 40})
    assert {"partitions-nothing"} == findings.keys() & {"partitions-nothing", "number-checkpoints"}
    enough, _, _ = _check(capsys, tmp_path, "deepspeed", {**few, "number_checkpoints": 32})
    gpu = [answer["phases"]["gpu"]["forward"] for answer in (enough, more)]
    assert gpu[1] - gpu[0] == 8 * INPUT


def test_contiguous_checkpoints_without_what_they_need_are_an_error(capsys, tmp_path):
    contiguous = {"contiguous_memory_optimization": True}
    for section, says in (
        (contiguous, "AssertionError"),
        ({**contiguous, "partition_activations": True}, "number_checkpoints missing"),
        ({**contiguous, "number_checkpoints": 32}, "partition_activations missing"),
        ({**contiguous, "partition_activations": True, "number_checkpoints": "32"}, "TypeError"),
        ({**contiguous, "partition_activations": True, "number_checkpoints": 0}, "IndexError"),
    ):
        _, findings, code = _check(capsys, tmp_path, "deepspeed", section)
        assert says in findings["contiguous-checkpoints"]["message"]
        assert findings["contiguous-checkpoints"]["severity"] == "error"
        assert code == 1
    _, findings, _ = _check(capsys, tmp_path, True, contiguous)
    assert findings["contiguous-checkpoints"]["severity"] == "warning"


@pytest.mark.parametrize("word", ["yes", "no", 1])
def test_any_word_switches_the_section_on(capsys, tmp_path, word):
    """DeepSpeed keeps what the section says and asks whether it is true, as "no" is."""
    said, findings, _ = _check(capsys, tmp_path, "deepspeed", {"cpu_checkpointing": word})
    meant, _, _ = _check(capsys, tmp_path, "deepspeed", {"cpu_checkpointing": True})
    off, _, _ = _check(capsys, tmp_path, "deepspeed", {"cpu_checkpointing": False})
    assert said["phases"] == meant["phases"] != off["phases"]
    assert ("wrong-type" in findings) == isinstance(word, str)


@pytest.mark.parametrize("model", ["t5-3b", "gpt2"])
def test_what_else_is_offloaded_is_not_modelled_and_said(capsys, tmp_path, model):
    """A T5's encoder output; a GPT-2's mask."""
    answer, findings, code = _check(
        capsys, tmp_path, "offload", {}, model=model, attention="eager", seq_len=512
    )
    assert findings["checkpointing-not-modelled"]["severity"] == "warning"
    assert answer["verdict"] != "fits"
    assert code != 0


@pytest.mark.slow
def test_a_step_takes_longer_the_more_is_recomputed(capsys, tmp_path):
    seconds = [
        _check(capsys, tmp_path, how, {})[0]["speed"]["step_seconds"]["expected"]
        for how in (False, "every-4", "every-2", "first-31", True)
    ]
    assert seconds == sorted(seconds)
    assert len(set(seconds)) == len(seconds)
