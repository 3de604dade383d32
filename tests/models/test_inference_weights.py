"""Weights by precision: the articles' figures, and layouts beside those of the packages."""

import pytest

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import model_of, without_config
from zero_sizer.models.changes import quantization
from zero_sizer.models.spec import Tensor
from zero_sizer.sizing import size
from zero_sizer.units import num_bytes


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


def layout(how: str, rows: int, columns: int) -> dict[str, tuple[tuple[int, ...], str]]:
    tensor = Tensor("layer.weight", (columns, rows), module_type="Linear")
    read = quantization.read(how, "--quantization")
    found = [quantization.packed(tensor, read), *quantization.statistics(tensor, read)]
    return {t.name.rpartition(".")[2]: (t.shape, t.dtype.value) for t in found}


def test_gptq_packs_rows_and_notes_their_group():
    assert layout("gptq", 4096, 11008) == {
        "weight": ((512, 11008), "int32"),
        "qzeros": ((32, 1376), "int32"),
        "scales": ((32, 11008), "float16"),
        "g_idx": ((4096,), "int32"),
    }
    assert layout("gptq,bits=8,group=-1", 4096, 64)["scales"] == ((1, 64), "float16")


def test_awq_packs_columns():
    assert layout("awq", 4096, 11008) == {
        "weight": ((4096, 1376), "int32"),
        "qzeros": ((32, 1376), "int32"),
        "scales": ((32, 11008), "float16"),
    }


def test_fp8_has_a_scale_a_block():
    found = layout("fp8", 7168, 2112)
    assert found == {
        "weight": ((2112, 7168), "float8_e4m3fn"),
        "weight_scale_inv": ((17, 56), "float32"),
    }


@pytest.mark.parametrize("how", ["nf4", "nf4,double", "fp4", "int8"])
@pytest.mark.parametrize("shape", [(64, 128), (96, 200), (130, 70)])
def test_bitsandbytes_to_the_byte(how, shape):
    pytest.importorskip("bitsandbytes")
    import torch
    from bitsandbytes import functional

    weight = torch.randn(shape)
    tensor = Tensor("layer.weight", shape, module_type="Linear")
    read = quantization.read(how, "--quantization")
    if how == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
        stored = codes.nbytes + scales.nbytes
    else:
        codes, state = functional.quantize_4bit(
            weight, quant_type=how[:3], compress_statistics=read.double, blocksize=64
        )
        stored = codes.nbytes + state.absmax.nbytes + state.code.nbytes
        if state.nested:
            nested = state.state2
            stored += state.offset.nbytes + nested.absmax.nbytes + nested.code.nbytes
    packed = quantization.packed(tensor, read)
    rows = [packed, *quantization.statistics(tensor, read)]
    assert sum(num_bytes(row.numel, row.dtype) for row in rows) == stored


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
