"""Weights by precision: the articles' figures, and layouts beside those of the packages."""

import json
from math import prod
from pathlib import Path

import pytest

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import model_of, without_config
from zero_sizer.models.changes import quantization
from zero_sizer.models.spec import Tensor
from zero_sizer.sizing import size


def weights(model: str, **flags) -> dict[str, int]:
    """Allocation -> bytes of a job of inference."""
    job = without_config({}, Flags(task="inference", model=model, prompt=8, new_tokens=2, **flags))
    return {a.name: a.num_bytes for a in size(job).allocations if a.device is Device.GPU}


@pytest.mark.parametrize(
    ("flags", "gigabytes"),
    [({"precision": "fp32"}, 59.1), ({"precision": "bf16"}, 29.5), ({"precision": "fp16"}, 29.5)],
)
def test_14_billion_parameters(flags, gigabytes):
    found = weights("qwen2.5-14b", **flags)
    assert round(found["weights"] / 1e9, 1) == gigabytes


@pytest.mark.parametrize(("how", "bytes_each"), [("int8", 1), ("nf4", 0.5), ("fp8", 1)])
def test_packed_weights_are_a_byte_or_half_each_and_the_rest_keeps_16_bits(how, bytes_each):
    spec = model_of(Flags(model="qwen2.5-14b", quantization=how, task="inference"))
    found = weights("qwen2.5-14b", quantization=how, precision="bf16")
    kept = sum(t.numel for t in spec.parameters if t.unpacked is None)
    assert found["quantized_weights"] == (spec.num_params - kept) * bytes_each
    assert found["weights"] == 2 * kept
    assert kept > 1.5e9, "embeddings and head are the rest"


@pytest.mark.parametrize(("how", "noted"), [("gptq", True), ("awq", False)])
def test_four_bits_a_weight_with_a_scale_and_a_zero_point_for_128(how, noted):
    spec = model_of(Flags(model="llama-2-7b", quantization=how, task="inference"))
    packed = [t for t in spec.parameters if t.unpacked is not None]
    found = weights("llama-2-7b", quantization=how, precision="fp16")
    stored = found["quantized_weights"] + found["quantization_statistics"]
    numel = sum(t.matrix[0] * t.matrix[1] for t in packed)
    assert numel == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    rows = sum(t.matrix[1] for t in packed) if noted else 0  # each notes its group in 32 bits
    assert 8 * stored == numel * 4 + numel * (16 + 4) // 128 + 32 * rows


def layout(how: str, shape: tuple[int, int]) -> list[tuple[int, str]]:
    """Elements and dtype of each tensor of a layer."""
    tensor = Tensor("layer.weight", shape, module_type="Linear")
    read = quantization.read(how, "--quantization")
    found = [quantization.packed(tensor, read), *quantization.statistics(tensor, read)]
    return sorted((t.numel, t.dtype.value) for t in found)


RECORDED = json.loads((Path(__file__).parent.parent / "data/quantized_layouts.json").read_text())
"""As bitsandbytes, gptqmodel, AutoAWQ and transformers make them."""


@pytest.mark.parametrize("how", sorted({layer["how"] for layer in RECORDED["layers"]}))
def test_layers_have_the_tensors_that_the_packages_make(how):
    layers = [layer for layer in RECORDED["layers"] if layer["how"] == how]
    for layer in layers:
        made = sorted((prod(shape), dtype) for shape, dtype in layer["tensors"])
        assert layout(how, tuple(layer["shape"])) == made, layer["shape"]


def test_an_fp8_layer_of_this_transformers():
    transformers_fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    made = transformers_fp8.FP8Linear(2112, 7168, block_size=(128, 128))
    tensors = (made.weight, made.weight_scale_inv)
    found = sorted((t.numel(), str(t.dtype).removeprefix("torch.")) for t in tensors)
    assert layout("fp8", (7168, 2112)) == found


@pytest.mark.parametrize("how", ["gptq", "awq", "fp8"])
def test_they_are_not_trained(how):
    with pytest.raises(UnsupportedError, match="for inference, not for training"):
        model_of(Flags(model="llama-2-7b", quantization=how))


@pytest.mark.parametrize(
    "how", ["gptq,bits=5", "awq,bits=8", "gptq,group=0", "gptq,group", "fp8,bits=4", "awq,x=1",
            "gptq,bits=4,bits=4", "gptq,group=99999999999", "int4"],
)  # fmt: skip
def test_nonsense_is_refused(how):
    with pytest.raises(InputError):
        model_of(Flags(model="llama-2-7b", quantization=how, task="inference"))
