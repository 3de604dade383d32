"""AutoTP of ``init_inference``: how it is stated, what fails, what a rank is counted for."""

import pytest

from zero_sizer.errors import InputError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.models.changes.group_codes import KEY
from zero_sizer.sizing import size

STATED = {"prompt": 100, "new_tokens": 10, "batch_size": 2, "attention": "sdpa"}


def sized(config=None, **flags):
    values = {"model": "llama-3-8b", "gpu": "h100-80gb", **STATED, **flags}
    return size(without_config(config or {}, Flags(task="inference", **values)))


def codes(sizing) -> set[str]:
    return {finding.code for finding in sizing.findings}


def bytes_of(sizing, name: str) -> int:
    return next(a.num_bytes for a in sizing.allocations if a.name == name)


def test_a_flag_and_a_config_say_alike():
    flag = sized(tensor_parallel=4)
    config = sized({"tensor_parallel": {"tp_size": 4}}, gpus_per_node=4)
    assert flag.job.cluster.gpus_per_node == 4, "as many GPUs as ranks where none are stated"
    assert flag.plan.model_dtype.value == "float16", "init_inference's default"
    assert bytes_of(flag, "weights") == bytes_of(config, "weights")
    parameters = flag.job.model.parameters
    kept = sum(t.numel for t in parameters if "norm" in t.name or "embed" in t.name)
    assert 4 * (bytes_of(flag, "weights") - 2 * kept) == 2 * (flag.job.model.num_params - kept)


def test_every_process_loads_the_whole_model_on_its_host():
    one, four = sized(precision="fp16"), sized(tensor_parallel=4)
    load = [s.peaks[Device.HOST].num_bytes for s in (one, four)]
    assert load[1] == 4 * load[0]
    assert "whole-model-before-slicing" in codes(four)


def test_numbers_alone_are_cut_as_well():
    numbers = "params=65.2e9,layers=80,hidden=8192,heads=64,ffn=22016,vocab=32000"
    found = sized(model=numbers, tensor_parallel=8)
    assert 2 * 65.2e9 / 8 < bytes_of(found, "weights") < 2 * 65.2e9 / 8 * 1.04


@pytest.mark.parametrize(("flags", "code"), [
    ({"tensor_parallel": 4, "gpus_per_node": 8}, "tensor-parallel-ranks"),
    ({"tensor_parallel": 4, "gpus_per_node": 2}, "tensor-parallel-ranks"),
    ({"tensor_parallel": 2, "model": "gpt2"}, "auto-tp-fails"),
    ({"tensor_parallel": 2, "model": "bloom-7b1"}, "auto-tp-fails"),
    ({"tensor_parallel": 2, "model": "phi-3-mini"}, "auto-tp-fails"),
    ({"tensor_parallel": 2, "model": "falcon-7b"}, "auto-tp-fails"),
])  # fmt: skip
def test_what_fails_is_an_error(flags, code):
    found = sized(**flags)
    assert code in codes(found)
    assert not found.is_valid


def test_a_config_of_initialize_has_no_such_ranks():
    found = sized({"zero_optimization": {"stage": 3}}, tensor_parallel=2)
    assert "tensor-parallel-contradicts-config" in codes(found)


def test_training_knows_no_such_flag():
    with pytest.raises(InputError):
        without_config({}, Flags(model="gpt2", tensor_parallel=2))


def test_packed_layers_are_not_cut_here():
    found = sized(tensor_parallel=2, quantization="nf4")
    assert "tensor-parallel-inference-not-modelled" in codes(found)


def quantized(how, **flags):
    config = {
        "zero_optimization": {"stage": 3},
        "bf16": {"enabled": True},
        KEY.partition(".")[0]: {KEY.partition(".")[2]: how},
    }
    return sized(config, gpus_per_node=2, **flags)


def test_codes_need_zero_init():
    how = {"num_bits": 4, "group_size": 64, "group_dim": 1, "symmetric": False}
    made, idle = quantized(how, zero_init=True), quantized(how, zero_init=False)
    assert "idle-key" in codes(idle)
    assert "idle-key" not in codes(made)
    assert bytes_of(made, "partitions") < 0.3 * bytes_of(idle, "partitions")


@pytest.mark.parametrize("how", [
    {"num_bits": 4, "group_size": 100, "group_dim": 1, "symmetric": False},
    {"num_bits": 2, "group_size": 64, "group_dim": 1, "symmetric": False},
    {"num_bits": 4},
])  # fmt: skip
def test_codes_that_deepspeed_refuses_are_errors(how):
    found = quantized(how, zero_init=True)
    assert "weights-not-quantizable" in codes(found)
    assert not found.is_valid
