"""The verdict: the least and the most that a job may need, and what decides between them."""

import json
from pathlib import Path

import pytest

from zero_sizer import cli, models
from zero_sizer.advise.choose import choose
from zero_sizer.advise.verdict import words_of
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware import catalog, outside
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.ledger import capacity
from zero_sizer.ledger.capacity import Capacity, Fit
from zero_sizer.ledger.moments import Moment
from zero_sizer.ledger.verdict import Need, Verdict, need_of
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.inputs import besides_tokens
from zero_sizer.models.spec import ModelSpec
from zero_sizer.sizing import size
from zero_sizer.units import GIB
from zero_sizer.util.interval import Interval, between

OPTIMIZER = {"type": "AdamW", "params": {"lr": 1e-5}}
BF16 = {"bf16": {"enabled": True}, "optimizer": OPTIMIZER, "train_micro_batch_size_per_gpu": 1}
OFFLOAD = {"stage": 3, "offload_optimizer": {"device": "cpu"}}


def ask(tmp_path, capsys, config, *arguments, command="check"):
    """(exit code, JSON) of a command on a config."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(config))
    code = cli.main([command, str(path), *arguments, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


def codes(answer):
    return [reason["code"] for reason in answer["reasons"]]


# The interval


def doubt(direction, num_bytes=None, **more):
    fields = {"code": "x-not-modelled", "severity": Severity.WARNING, "message": "x"}
    return Finding(**fields, direction=direction, num_bytes=num_bytes, **more)


MOMENTS = dict.fromkeys(Moment, 10) | {Moment.BACKWARD: 80, Moment.UPDATE: 50}
ROOM = Capacity(num_bytes=100, outside=Interval(5, 8, 10))


@pytest.mark.parametrize(
    ("about", "low", "high"),
    [
        ([], 85, 90),
        ([doubt(Direction.COST, 7)], 85, 97),
        ([doubt(Direction.COST)], 85, None),
        ([doubt(Direction.SAVE, 20)], 65, 90),
        ([doubt(Direction.SAVE, 60)], 55, 90),  # it saves in passes: the step is there whatever
        ([doubt(Direction.SAVE)], 5, 90),
        ([doubt(Direction.EITHER, 20, less_bytes=10)], 75, 110),
        ([doubt(Direction.EITHER)], 5, None),
        ([doubt(Direction.COST, 3), doubt(Direction.COST, 4)], 85, 97),
    ],
)
def test_each_direction_moves_its_own_end(about, low, high):
    need = need_of(MOMENTS, ROOM, 0, about)
    assert (need.low, need.expected, need.high) == (low, 88, high)


def test_room_for_the_largest_tensor_is_asked_for_beside_what_is_usual_outside():
    assert need_of(MOMENTS, ROOM, 2, []).high == 90  # as much as others may take
    assert need_of(MOMENTS, ROOM, 12, []).high == 100
    assert need_of(MOMENTS, ROOM, 13, []).fit(ROOM) is Fit.UNKNOWN


@pytest.mark.parametrize(
    ("low", "high", "fit"), [(90, 100, Fit.YES), (90, 101, Fit.UNKNOWN), (101, 102, Fit.NO)]
)
def test_the_most_must_be_there_and_not_even_the_least_may_be_missing(low, high, fit):
    assert Need(low=low, expected=low, high=high).fit(ROOM) is fit
    assert Need(low=low, expected=low, high=None).fit(ROOM) is (
        Fit.NO if fit is Fit.NO else Fit.UNKNOWN
    )


def test_what_a_full_gpu_reserves_ends_at_what_it_has():
    small = Capacity(num_bytes=110, outside=Interval(5, 8, 10))
    assert capacity.reserved(100, small) == Interval(100, 105, 105)
    assert capacity.reserved(100, Capacity(num_bytes=None)) == Interval(100, 120, 165)


def test_the_middle_of_a_range_of_factors_is_geometric():
    assert between(1 * GIB, 4 * GIB).expected == 2 * GIB


# Devices that the config loads


def test_a_host_that_the_config_loads_must_be_stated(tmp_path, capsys):
    cluster = ("--model", "llama-3-8b", "--gpus-per-node", "8", "--gpu", "h100-80gb")
    said = (*cluster, "--seq-len", "1024", "--checkpointing")
    code, answer = ask(tmp_path, capsys, BF16 | {"zero_optimization": OFFLOAD}, *said)
    assert (code, answer["verdict"], codes(answer)) == (3, "uncertain", ["host-unknown"])
    assert answer["reasons"][0]["remedy"] == "give --host-memory"
    stated = (*said, "--host-memory", "1TiB")
    code, answer = ask(tmp_path, capsys, BF16 | {"zero_optimization": OFFLOAD}, *stated)
    assert (code, answer["verdict"], answer["reasons"]) == (0, "fits", [])
    # the copies of init are on no host on purpose: they are a note
    code, answer = ask(tmp_path, capsys, BF16 | {"zero_optimization": {"stage": 3}}, *said)
    assert (code, answer["verdict"]) == (0, "fits")
    assert "host-unknown" in {f["code"] for f in answer["findings"]}


def test_a_gpu_must_be_stated(tmp_path, capsys):
    said = ("--model", "gpt2", "--seq-len", "128", "--attention", "eager")
    code, answer = ask(tmp_path, capsys, BF16, *said)
    assert (code, codes(answer)) == (3, ["gpu-unknown"])


@pytest.mark.slow
def test_a_host_has_room_for_the_processes_too(tmp_path, capsys):
    """Qwen2.5-32B, all on the host, one H100 NVL, 744 GB: killed (LlamaFactory#6755)."""
    parked = {"offload_param": {"device": "cpu", "pin_memory": False}}
    config = BF16 | {"zero_optimization": OFFLOAD | parked}
    said = ("--model", "llama-3-8b", "--gpus-per-node", "2", "--gpu", "h100-80gb")
    said = (*said, "--seq-len", "512", "--checkpointing", "--host-memory")
    _, answer = ask(tmp_path, capsys, config, *said, "1TiB")
    peak = answer["devices"]["host"]["peak_bytes"]
    for spare, verdict in ((GIB // 2, "does_not_fit"), (2 * GIB, "uncertain"), (8 * GIB, "fits")):
        _, answer = ask(tmp_path, capsys, config, *said, str(peak + spare))
        assert answer["verdict"] == verdict, spare
    assert answer["devices"]["host"]["outside_bytes"]["low"] == 2 * outside.PROCESS.low


def test_workers_of_a_data_loader_are_stated_and_counted(tmp_path, capsys):
    config = BF16 | {"zero_optimization": OFFLOAD}
    said = ("--model", "gpt2", "--gpus-per-node", "4", "--gpu", "h100-80gb", "--seq-len", "1024")
    said = (*said, "--host-memory", "64GiB")
    highs = {}
    for workers in ("0", "8"):
        _, answer = ask(tmp_path, capsys, config, *said, "--num-workers", workers)
        highs[workers] = answer["devices"]["host"]["high_bytes"]
        assert answer["job"]["num_workers"]["value"] == int(workers)
    batches = 4 * 8 * 2 * 1024 * 3 * 8
    assert highs["8"] - highs["0"] == 4 * 8 * outside.WORKER.high + batches


# What is not modelled


@pytest.mark.slow
@pytest.mark.parametrize(
    "feature",
    [
        {"sequence_parallel_size": 8},
        {"tensor_parallel": {"autotp_size": 8}},
        {"pipeline": {"stages": 4}},
        {"compile": {"deepcompile": True}},
    ],
)
def test_what_may_save_is_no_ground_for_does_not_fit(tmp_path, capsys, feature):
    config = BF16 | {"zero_optimization": {"stage": 1}}
    said = ("--model", "llama-3-70b", "--gpus-per-node", "8", "--gpu", "a100-80gb")
    said = (*said, "--seq-len", "4096", "--checkpointing")
    assert ask(tmp_path, capsys, config, *said)[0] == 1
    code, answer = ask(tmp_path, capsys, config | feature, *said)
    assert (code, answer["verdict"]) == (3, "uncertain")
    assert answer["reasons"][0]["code"] == "not-modelled"
    assert answer["reasons"][0]["direction"] in ("save", "either")
    assert answer["devices"]["gpu"]["low_bytes"] < answer["devices"]["gpu"]["peak_bytes"]


def test_what_only_costs_is_no_excuse(tmp_path, capsys):
    config = BF16 | {"zero_optimization": {"stage": 1, "zenflow": {"topk_ratio": 0.1}}}
    said = ("--model", "llama-3-70b", "--gpus-per-node", "8", "--gpu", "a100-80gb")
    _, answer = ask(tmp_path, capsys, config, *said, "--seq-len", "4096", "--checkpointing")
    assert answer["verdict"] == "does_not_fit"


LONG = ("--model", "llama-3.1-8b", "--gpus-per-node", "8", "--gpu", "h100-80gb", "--host-memory")
LONG = (*LONG, "1900GiB", "--seq-len", "160000", "--checkpointing", "--attention", "flash")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernels", "verdict"),
    [
        (("--loss", "fused-linear"), "uncertain"),
        (("--kernels", "liger"), "uncertain"),
        (("--kernels", "transformers", "--loss", "fused-linear"), "does_not_fit"),
        ((), "does_not_fit"),
    ],
)
def test_ligers_other_kernels_save_too(tmp_path, capsys, kernels, verdict):
    """160,000 tokens on each of 8 H100 ran with all of Liger's kernels (ArcticTraining)."""
    both = OFFLOAD | {"offload_param": {"device": "cpu"}}
    _, answer = ask(tmp_path, capsys, BF16 | {"zero_optimization": both}, *LONG, *kernels)
    assert answer["verdict"] == verdict
    assert ("liger-not-modelled" in codes(answer)) == (verdict == "uncertain")
    liger = "--loss" in kernels or "liger" in kernels
    assert answer["job"]["kernels"]["value"] == (kernels[1] if "--kernels" in kernels else None)
    loss = {s["keys"].get("loss", {}).get("value") for s in answer["allocations"]}
    assert loss - {None} in ({"fused-linear"} if liger else {"transformers"}, set())


def test_liger_saves_nothing_of_what_is_there_without_a_pass(tmp_path, capsys):
    said = ("--model", "llama-3-70b", "--gpus-per-node", "8", "--gpu", "h100-80gb")
    said = (*said, "--seq-len", "1024", "--checkpointing", "--kernels", "liger")
    _, answer = ask(tmp_path, capsys, BF16 | {"zero_optimization": {"stage": 2}}, *said)
    assert answer["verdict"] == "does_not_fit"


def test_a_model_that_liger_does_not_patch_is_said(tmp_path, capsys):
    said = ("--model", "gpt2", "--gpu", "h100-80gb", "--seq-len", "512", "--kernels", "liger")
    _, answer = ask(tmp_path, capsys, BF16, *said)
    assert "kernels-unknown" in {f["code"] for f in answer["findings"]}


def test_every_doubt_has_a_direction():
    """A rule that names something as not modelled says how it moves the prediction."""
    root = Path(cli.__file__).parent.parent
    sources = [*root.glob("checks/*.py"), *root.glob("timeline/*.py"), root / "plan" / "resolve.py"]
    said = "\n".join(path.read_text() for path in sources)
    assert said.count("not-modelled") <= said.count("Direction.") + 1  # an unknown optimizer


# The step's own request


def test_the_step_asks_for_its_flat_gradients_in_one_piece(tmp_path, capsys):
    """Qwen2.5-3B, ZeRO-2, 4 x 3090, 512 tokens: out of memory (LlamaFactory#6752).

    The simulated run asks for 2.87 GiB in the step, and has them only with the least outside.
    """
    said = ("--model", "qwen2.5-3b", "--gpus-per-node", "4", "--gpu", "rtx-3090")
    said = (*said, "--seq-len", "512", "--checkpointing")
    config = BF16 | {"zero_optimization": {"stage": 2}}
    code, answer = ask(tmp_path, capsys, config, *said)
    assert (code, codes(answer)) == (3, ["gpu-tight"])
    gpu = answer["devices"]["gpu"]
    assert gpu["peak_moment"] == "gradients flattened and cast"
    assert gpu["high_bytes"] - gpu["peak_bytes"] > 2.87 * GIB


# Models that are fed something else than tokens

OTHERS = {  # fields as their config.json has them
    "whisper": {"model_type": "whisper", "vocab_size": 51866, "num_mel_bins": 128},
    "llava": {
        "model_type": "llava",
        "vision_config": {"image_size": 336},
        "text_config": {"vocab_size": 32064},
    },
    "qwen2-vl": {
        "model_type": "qwen2_vl",
        "vocab_size": 152064,
        "vision_config": {"depth": 32, "patch_size": 14},
    },
    "gemma-3": {
        "model_type": "gemma_3",
        "text_config": {"vocab_size": 262208},
        "vision_config": {"image_size": 896},
    },
    "vit": {"model_type": "vit", "image_size": 224, "patch_size": 16, "num_channels": 3},
    "clip": {
        "model_type": "clip",
        "text_config": {"vocab_size": 49408},
        "vision_config": {"image_size": 224},
    },
    "wav2vec2": {
        "model_type": "wav2vec2",
        "vocab_size": 32,
        "conv_stride": [5, 2],
        "feat_extract_norm": "group",
    },
    "qwen2-audio": {
        "model_type": "qwen2_audio",
        "audio_config": {"num_mel_bins": 128},
        "text_config": {"vocab_size": 156032},
    },
    "unet": {"_class_name": "UNet2DConditionModel", "sample_size": 64, "cross_attention_dim": 768},
    "unknown": {"model_type": "something", "hidden_size": 512},
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_fed_tokens_alone_is_seen(name):
    assert besides_tokens(ModelSpec(name=name, origin="", parameters=(), hf_config=OTHERS[name]))


@pytest.mark.slow
def test_inputs_are_known_of_every_bundled_model():
    """Tokens and labels alone, or a feed; of others nothing is told (``inputs-not-modelled``)."""
    specs = [models.load(row.name) for row in models.describe_all()]
    unknown = {spec.name for spec in specs if besides_tokens(spec) and feed_of(spec) is None}
    gemma = {f"gemma-4-{size}" for size in ("26b-a4b", "31b", "e2b", "e4b")}
    assert unknown == {*gemma, "llama-3.2-11b-vision"}


def test_a_closed_form_is_no_ground_for_a_model_of_images(tmp_path, capsys):
    """LLaVA-1.5-7B, ZeRO-2, 8 A100-40GB: out of memory (LLaVA#655)."""
    pytest.importorskip("transformers")
    text = {"model_type": "llama", "vocab_size": 32064, "hidden_size": 256}
    text |= {"num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4}
    vision = {"model_type": "clip_vision_model", "hidden_size": 64, "num_hidden_layers": 2}
    vision |= {"image_size": 336, "patch_size": 14, "intermediate_size": 128}
    vision |= {"num_attention_heads": 4}
    (tmp_path / "llava.json").write_text(
        json.dumps({"model_type": "llava", "text_config": text, "vision_config": vision})
    )
    said = ("--model", str(tmp_path / "llava.json"), "--gpu", "h100-80gb", "--seq-len", "512")
    code, answer = ask(tmp_path, capsys, BF16, *said)
    assert (code, answer["reasons"][0]["code"]) == (3, "inputs-not-modelled")
    assert "images" in answer["reasons"][0]["message"]


# One shortfall, and no speed for what cannot run


def test_every_command_prints_the_same_shortfall(tmp_path, capsys):
    said = ("--model", "llama-3-8b", "--gpus-per-node", "2", "--gpu", "rtx-3090")
    said = (*said, "--seq-len", "1024", "--checkpointing", "--host-memory", "32GiB")
    config = BF16 | {"zero_optimization": {"stage": 3}}
    _, answer = ask(tmp_path, capsys, config, *said)
    gpu = answer["devices"]["gpu"]
    assert gpu["shortfall_bytes"] == gpu["low_bytes"] - gpu["capacity_bytes"] > 0
    assert answer["speed"] == {}
    words = answer["reasons"][0]["message"]
    cli.main(["check", str(tmp_path / "ds.json"), *said])
    text = capsys.readouterr().out
    assert text.startswith(f"DOES NOT FIT   {words}")
    assert "A step takes" not in text


@pytest.mark.slow
def test_a_search_is_short_of_what_check_is_short_of():
    stated = {"seq_len": 2048, "checkpointing": False, "attention": "sdpa"}  # nothing is assumed
    flags = Flags(
        model="mistral-7b", gpus_per_node=2, gpu="rtx-3090", host_memory="32GiB", **stated
    )
    choice = choose(without_config(BF16, flags))
    assert choice.verdict is Verdict.DOES_NOT_FIT
    seen = 0
    for loss in choice.losses:
        if loss.closest is None:
            continue
        sizing = size(choice.search.job_of(loss.closest))
        for shortfall in loss.shortfalls:
            assert sizing.shortfall(shortfall.device) == shortfall.missing_bytes
            words = [reason.message for reason in sizing.reasons]
            assert not shortfall.is_certain or words_of(shortfall) in words
            seen += shortfall.is_certain
    assert seen > 5


@pytest.mark.slow
@pytest.mark.parametrize("command", ["choose", "size"])
def test_a_choice_has_the_verdict_of_check(tmp_path, capsys, command):
    said = ("--model", "llama-3-8b", "--gpus-per-node", "8", "--gpu", "h100-80gb")
    said = (*said, "--seq-len", "1024", "--host-memory", "1TiB")
    more = ("--max-nodes", "1") if command == "size" else ()
    code, answer = ask(tmp_path, capsys, BF16, *said, *more, command=command)
    assert (code, answer["verdict"], answer["reasons"]) == (0, "fits", [])
    feature = {"hybrid_engine": {"enabled": True}}
    code, answer = ask(tmp_path, capsys, BF16 | feature, *said, *more, command=command)
    assert (code, answer["verdict"], codes(answer)) == (3, "uncertain", ["not-modelled"])


# The report


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_report_is_as_narrow_as_the_terminal(tmp_path, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    (tmp_path / "ds.json").write_text(json.dumps(BF16 | {"zero_optimization": OFFLOAD}))
    monkeypatch.chdir(tmp_path)
    for gpu in ("h100-80gb", "rtx-3090"):
        said = ("--model", "llama-3-8b", "--gpus-per-node", "2", "--gpu", gpu)
        cli.main(["check", "ds.json", *said, "--seq-len", "4096", "--host-memory", "1TiB"])
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= columns
        assert "backward" in text


@pytest.mark.slow
def test_workspaces_and_ranges_of_every_gpu_stand_in_one_place():
    """The ledger and the simulated run ask the same table."""
    for gpu in catalog.all_gpus():
        sizing = size(without_config(BF16, Flags(model="gpt2", gpu=gpu.name, seq_len=64)))
        (counted,) = [a for a in sizing.allocations if a.name == "cublas_workspace"]
        simulated = request_of(sizing.job, rank=0, steps=1).blas_bytes
        assert counted.num_bytes == 2 * simulated == 2 * blas_bytes(gpu), gpu.name
