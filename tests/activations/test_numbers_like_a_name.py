"""A model given as numbers needs what the named one of these widths needs."""

import pytest
from support.plans import make_job

from zero_sizer import models
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import model_of
from zero_sizer.sizing import size

NUMBERS = "params=6.7e9,layers=32,hidden=4096,heads=32,ffn=11008,vocab=32000"  # not to the last one
ZERO = {"stage": 3, "stage3_prefetch_bucket_size": 0}
CONFIGS = {
    "stage 3 in fp32": {"zero_optimization": ZERO},
    "stage 3 in bf16": {"bf16": {"enabled": True}, "zero_optimization": ZERO},
    "stage 2 in bf16": {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}},
    "autocast": {
        "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
        "zero_optimization": {"stage": 2},
    },
}


def peak(spec, config, *, checkpointing):
    """Bytes of a GPU at its highest; on the host numbers are taken to be loaded in fp32."""
    job = make_job(config, spec, 4, checkpointing=checkpointing, micro_batch=2, seq_len=256)
    return size(job).peaks[Device.GPU].num_bytes


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("adapter", [None, "r=8,targets=all-linear"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_peaks_are_those_of_the_name(config, adapter, checkpointing):
    numbers = model_of(Flags(model=NUMBERS, adapter=adapter))
    named = model_of(Flags(model="llama-2-7b", adapter=adapter))
    assert 0 < 1 - numbers.num_params / named.num_params < 0.01
    expected = peak(named, config, checkpointing=checkpointing)
    assert peak(numbers, config, checkpointing=checkpointing) == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nf4", "int8"])
@pytest.mark.parametrize("stage", [2, 3])
def test_quantized_numbers_are_like_the_quantized_name(how, stage):
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": stage}}
    flags = {"adapter": "r=8,targets=all-linear", "quantization": how}
    found = [
        peak(model_of(Flags(model=name, **flags)), config, checkpointing=True)
        for name in (NUMBERS, "llama-2-7b")
    ]
    assert found[0] == pytest.approx(found[1], rel=0.03)


@pytest.mark.slow
def test_exact_numbers_are_the_name_s():
    """But for a copy of the rotary frequencies, 1 KiB."""
    exact = NUMBERS.replace("6.7e9", "6738415616")
    for config in CONFIGS.values():
        found = [
            peak(models.load(name), config, checkpointing=True) for name in (exact, "llama-2-7b")
        ]
        assert found[0] == pytest.approx(found[1], abs=1024)
