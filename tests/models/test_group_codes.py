"""DeepSpeed's own codes of weights beside the tensors that its ``_quantize_param`` makes."""

import pytest
import torch
from deepspeed.inference.quantization.utils import _quantize_param

from zero_sizer.models.changes import group_codes
from zero_sizer.models.changes.records import GroupCodes
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType

DTYPES = {torch.bfloat16: DType.BF16, torch.float16: DType.FP16, torch.float32: DType.FP32}


def section(bits=4, size=64, dimension=1, **more):
    return {
        "num_bits": bits, "group_size": size, "group_dim": dimension, "symmetric": False, **more,
    }  # fmt: skip


def stored(shape: tuple[int, ...], kind: str, values, dtype: DType) -> Tensor:
    spec = ModelSpec(
        name="one", origin="a test", parameters=(Tensor("layer.weight", shape, module_type=kind),)
    )
    return group_codes.with_group_codes(spec, group_codes.read(values), dtype).parameters[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("shape", "size", "dimension"), [
    ((96, 128), 64, 1), ((96, 128), 32, 0), ((64, 256), 128, 1), ((128, 64), 1, 0),
])  # fmt: skip
def test_as_many_bytes_as_the_real_parameter(dtype, bits, shape, size, dimension):
    values = section(bits, size, dimension)
    real = torch.nn.Parameter(torch.randn(shape).to(dtype), requires_grad=False)
    _quantize_param(real, values)
    found = stored(shape, "Linear", values, DTYPES[dtype])
    assert (found.numel, found.dtype) == (real.numel(), DTYPES[real.dtype])
    assert found.unpacked == shape


@pytest.mark.parametrize(("shape", "values"), [
    ((96, 100), section()),  # rows that are no whole groups
    ((96, 128), section(bits=3)),
    ((96, 128), section() | {"symmetric": True}),
    ((96, 128), {"num_bits": 4}),
])  # fmt: skip
def test_what_deepspeed_refuses_is_refused_in_its_words(shape, values):
    real = torch.nn.Parameter(torch.randn(shape).to(torch.bfloat16), requires_grad=False)
    with pytest.raises((AssertionError, KeyError)) as error:
        _quantize_param(real, values)
    with pytest.raises(ValueError, match=type(error.value).__name__):
        stored(shape, "Linear", values, DType.BF16)


def test_norms_biases_and_subclasses_stay_as_they_are():
    for kind in ("LlamaRMSNorm", "OPTLearnedPositionalEmbedding", "Linear4bit"):
        assert stored((96, 128), kind, section(), DType.BF16).unpacked is None
    assert stored((96, 128), "Embedding", section(), DType.BF16).unpacked == (96, 128)


def test_a_section_is_read():
    assert group_codes.read(section(8, 32, 0)) == GroupCodes(bits=8, size=32, dimension=0)
