"""Jobs of inference: what is read, assumed, refused and left out."""

import json

import pytest

from zero_sizer.errors import InputError
from zero_sizer.findings import Direction
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read, without_config
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import size

STATED = {"prompt": 100, "new_tokens": 10, "batch_size": 2, "attention": "sdpa"}


def sized(config=None, **flags):
    values = {"model": "llama-3.2-1b", "gpu": "rtx-4090", "gpus_per_node": 1, **STATED, **flags}
    return size(without_config(config or {}, Flags(task="inference", **values)))


def codes(sizing) -> set[str]:
    return {finding.code for finding in sizing.findings}


def test_a_job_that_says_all_assumes_nothing():
    found = sized(host_memory="64GiB")
    assert found.verdict is Verdict.FITS
    assert codes(found) == {"servers-reserve"}
    assert not any("gradient" in a.name or "optimizer" in a.name for a in found.allocations)


def test_the_weights_have_the_precision_of_their_checkpoint():
    assert sized().plan.model_dtype.value == "bfloat16"
    assert sized(precision="fp32").plan.model_dtype.value == "float32"
    assert sized({"fp16": {"enabled": True}}).plan.model_dtype.value == "float16"
    assert sized({"dtype": "fp32"}).plan.model_dtype.value == "float32"
    assert sized({"replace_with_kernel_inject": False}).plan.model_dtype.value == "float16"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"seq_len": 64, "prompt": 40, "new_tokens": None}, (40, 24)),
        ({"seq_len": 64, "prompt": None, "new_tokens": 10}, (54, 10)),
        ({"seq_len": 64, "prompt": 54, "new_tokens": 10}, (54, 10)),
        ({"seq_len": 64, "prompt": None, "new_tokens": None}, (63, 1)),
        ({"seq_len": 1, "prompt": None, "new_tokens": None}, (1, 0)),
    ],
)
def test_a_sequence_is_its_prompt_and_its_new_tokens(flags, expected):
    plan = sized(**flags).plan
    assert (plan.seq_len, plan.new_tokens) == expected


@pytest.mark.parametrize(
    "flags",
    [
        {"seq_len": 64, "prompt": 54, "new_tokens": 11},
        {"seq_len": 64, "prompt": 65, "new_tokens": None},
        {"seq_len": 64, "prompt": None, "new_tokens": 64},
        {"micro_batch": 2},
    ],
)
def test_lengths_that_do_not_add_up_are_refused(flags):
    with pytest.raises(InputError):
        sized(**flags)


@pytest.mark.parametrize("flag", [{"prompt": 5}, {"new_tokens": 0}, {"cache": "static"}])
def test_words_of_inference_need_the_task(flag):
    with pytest.raises(InputError, match="is about inference"):
        without_config({}, Flags(model="gpt2", **flag))


def test_a_job_file_needs_no_config(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        "model: gpt2\ncluster: {gpu: t4, gpus_per_node: 1}\n"
        "workload: {task: inference, prompt: 100, new_tokens: 20, batch_size: 3}\n"
    )
    plan = size(read(str(path))).plan
    assert (plan.micro_batch, plan.seq_len, plan.new_tokens) == (3, 100, 20)


def test_words_about_training_are_said_to_be_idle():
    assert "idle-in-inference" in codes(sized(grad_accum=4, checkpointing=True))


@pytest.mark.parametrize(
    ("config", "code", "direction"),
    [
        ({"quant": {"enabled": True}, "dtype": "fp16"}, "weight-quantization-not-modelled",
         Direction.EITHER),
        ({"replace_with_kernel_inject": True}, "kernel-injection-not-modelled", Direction.EITHER),
        ({"hybrid_engine": {"enabled": True}}, "hybrid-engine-not-modelled", Direction.COST),
        ({"optimizer": {"type": "AdamW"}}, "optimizer-in-inference", Direction.COST),
        ({"dtype": "int8"}, "int8-injection-not-modelled", Direction.SAVE),
    ],
)  # fmt: skip
def test_what_is_not_modelled_has_a_direction(config, code, direction):
    (found,) = [f for f in sized(config).findings if f.code == code]
    assert found.direction is direction


@pytest.mark.parametrize("stage", [1, 2])
def test_stages_that_need_an_optimizer_are_refused(stage):
    found = sized({"zero_optimization": {"stage": stage}})
    assert "stage-without-optimizer" in codes(found)
    assert not found.is_valid


def test_unknown_keys_of_init_inference_are_errors():
    found = sized({"dtype": "fp16", "replace_with_kernel_injekt": True})
    assert "unknown-key" in codes(found)


def test_more_tokens_than_positions_are_an_error():
    found = sized(model="gpt2", prompt=1000, new_tokens=100)
    assert "sequence-too-long" in codes(found)
    assert not found.is_valid


def test_a_static_cache_is_there_from_the_first_token():
    grows, fixed = sized(new_tokens=900), sized(new_tokens=900, cache="static")

    def bytes_of(sizing, name):
        return next(a.num_bytes for a in sizing.allocations if a.name == name)

    assert bytes_of(fixed, "kv_cache_in_prefill") == bytes_of(fixed, "kv_cache_in_decode")
    assert bytes_of(grows, "kv_cache_in_decode") == bytes_of(fixed, "kv_cache_in_decode")
    assert bytes_of(grows, "kv_cache_in_prefill") < bytes_of(fixed, "kv_cache_in_prefill")


def test_offloaded_partitions_load_the_host_on_purpose():
    zero = {"stage": 3, "offload_param": {"device": "cpu"}}
    found = sized({"bf16": {"enabled": True}, "zero_optimization": zero})
    assert found.verdict is Verdict.UNCERTAIN
    assert any(reason.device == Device.HOST.value for reason in found.reasons)


def test_the_json_has_the_phases_of_inference(capsys):
    from zero_sizer import cli

    cli.main(["check", "--task", "inference", "--model", "gpt2", "--format", "json"])
    phases = json.loads(capsys.readouterr().out)["phases"]["gpu"]
    assert list(phases) == ["init", "prefill", "decode", "load"]


def test_training_still_asks_for_its_config(capsys):
    from zero_sizer import cli

    assert cli.main(["check", "--model", "gpt2"]) == 2
    assert "CONFIG" in capsys.readouterr().err
