"""Packed base weights: what bitsandbytes keeps of them, which layers transformers converts."""

import json
from pathlib import Path

import pytest
from support.plans import make_job

from zero_sizer import models
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import model_of, read
from zero_sizer.models.changes import lora_config
from zero_sizer.models.changes import quantization as quantized
from zero_sizer.models.changes.lora import with_adapter
from zero_sizer.models.spec import Tensor
from zero_sizer.plan import sizes
from zero_sizer.sizing import Verdict, size
from zero_sizer.units import DType, num_bytes

# bitsandbytes 0.50.2 on a CPU, Params4bit and Int8Params after quantizing:
# (how, shape of the weight) -> shape stored, {statistic: (elements, dtype)}
MEASURED = {
    ("nf4", (96, 50)): ((2400, 1), {"absmax": (75, "float32"), "code": (16, "float32")}),
    ("nf4,storage=bfloat16", (128, 640)): (
        (20480, 1),
        {"absmax": (1280, "float32"), "code": (16, "float32")},
    ),
    ("nf4,double", (128, 640)): (
        (40960, 1),
        {
            "absmax": (1280, "uint8"),
            "code": (16, "float32"),
            "offset": (1, "float32"),
            "nested_absmax": (5, "float32"),
            "nested_code": (256, "float32"),
        },
    ),
    ("int8", (96, 50)): ((96, 50), {"SCB": (96, "float32")}),
}


@pytest.mark.parametrize(("how", "shape"), MEASURED)
def test_sizes_are_bitsandbytes_own(how, shape):
    quantization = quantized.read(how, "--quantization")
    tensor = Tensor("layer.weight", shape, module_type="Linear")
    stored, statistics = MEASURED[how, shape]
    assert quantized.packed(tensor, quantization).shape == stored
    found = quantized.statistics(tensor, quantization)
    named = {t.name.rpartition(".")[2]: (t.numel, t.dtype.value) for t in found}
    assert named == statistics


def test_linear_layers_are_packed_and_heads_and_embeddings_are_not():
    spec = models.load("llama-2-7b")
    found = quantized.with_quantization(spec, quantized.read("nf4", "--quantization"))
    kept = {t.name for t in found.parameters if t.unpacked is None}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= kept
    assert not any("proj" in name for name in kept)
    assert found.num_params == spec.num_params
    linear = sum(t.numel for t in spec.parameters if "_proj" in t.name)
    assert sum(t.numel for t in found.parameters if t.unpacked) == linear // 2
    tied = quantized.with_quantization(models.load("gpt2"), quantized.read("nf4", "x"))
    assert {t.module_type for t in tied.parameters if "c_fc.weight" in t.name} == {"Linear4bit"}


def test_bytes_on_a_gpu_below_stage_3_are_those_of_codes_and_statistics():
    spec = model_of(Flags(model="llama-2-7b", quantization="nf4,double", adapter="r=8"))
    job = make_job({"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}, spec, 8)
    held = {a.name: a.num_bytes for a in size(job).allocations}
    linear = 6_738_415_616 - 2 * 32000 * 4096 - 65 * 4096
    assert held["quantized_parameters"] == linear // 2
    assert held["frozen_parameters"] == 2 * (2 * 32000 * 4096 + 65 * 4096)
    statistics = held["model_buffers_uint8"] + held["model_buffers_float32"]
    assert linear // 64 < statistics < 1.03 * linear // 64


def test_a_config_json_says_it_itself_and_a_flag_wins(tmp_path):
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "quantization_config": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    own = model_of(Flags(model=str(path), adapter="r=4")).quantization
    assert (own.bits, own.double, own.storage) == (4, True, DType.UINT8)
    assert model_of(Flags(model=str(path), quantization="int8")).quantization.bits == 8
    job = tmp_path / "job.yaml"
    job.write_text(f"model: {path}\nquantization: nf4\nadapter: {{r: 4}}\ndeepspeed: {{}}\n")
    assert not read(str(job)).model.quantization.double
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    path.write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="GPTQ are modelled for inference"):
        model_of(Flags(model=str(path)))


@pytest.mark.parametrize(
    "text",
    [
        *("nf5", "nf4,triple", "nf4,storage=int4", "nf4,colour=red", "nf4,storage="),
        *("nf4,double,double", "int8,double", "int8,storage=bfloat16", "nf4,"),
    ],
)
def test_mistakes_are_named(text):
    with pytest.raises(InputError, match="--quantization"):
        model_of(Flags(model="llama-2-7b", quantization=text))


def _codes(how, text, config):
    spec = quantized.with_quantization(models.load("llama-2-7b"), quantized.read(how, "x"))
    if text:
        spec = with_adapter(spec, lora_config.read(text, "x"))
    return {f.code for f in size(make_job(config, spec, 8, zero_init=None)).findings}


@pytest.mark.slow
def test_what_packed_weights_meet_in_the_engine():
    bf16 = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    assert "packed-weights-alone" in _codes("nf4", "", bf16)
    assert "packed-codes-cast" in _codes("nf4,storage=float16", "r=8", bf16)
    assert "int8-not-modelled" in _codes("int8", "r=8", bf16)
    fine = _codes("nf4,storage=bfloat16", "r=8", bf16)
    assert not fine & {"packed-weights-alone", "packed-codes-cast", "adapters-stay-fp32"}


def test_a_zero_init_that_packed_weights_never_get_is_said():
    spec = model_of(Flags(model="llama-2-7b", quantization="nf4", adapter="r=8"))
    stage_3 = {"zero_optimization": {"stage": 3}}
    for asked in (True, False, None):
        codes = {f.code for f in size(make_job(stage_3, spec, 8, zero_init=asked)).findings}
        assert ("zero-init-of-packed" in codes) == bool(asked)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("offload", ["none", "cpu"])
@pytest.mark.parametrize("optimizer", ["AdamW", "Muon", "SGD"])
def test_nothing_to_train_is_an_answer_too(stage, offload, optimizer):
    """Muon has no param group at all then."""
    spec = model_of(Flags(model="gpt2", quantization="nf4"))
    zero = {"stage": stage, "offload_optimizer": {"device": offload}}
    config = {"bf16": {"enabled": True}, "zero_optimization": zero}
    sized = size(make_job({**config, "optimizer": {"type": optimizer}}, spec, 8))
    assert sizes.num_trainable(sized.plan) == 0
    assert not [a for a in sized.allocations if a.category.value == "optimizer_states"]


def test_stacked_experts_are_said_to_stay_as_they_are():
    flags = Flags(model="mixtral-8x7b", quantization="nf4", adapter="r=8,targets=q_proj")
    findings = {f.code: f for f in size(make_job({}, model_of(flags), 8)).findings}
    told = findings["experts-not-packed"]
    assert told.severity is Severity.NOTE
    experts = 32 * 8 * 3 * 4096 * 14336  # layers x experts x matrices
    assert f"{experts:,} of 46," in told.message
    assert "experts-not-packed" not in _codes("nf4", "r=8", {})


def test_partitions_at_stage_3_leave_the_statistics_whole():
    spec = model_of(Flags(model="llama-2-7b", quantization="nf4", adapter="r=8"))
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    held = {a.name: a.num_bytes for a in size(make_job(config, spec, 8)).allocations}
    codes = [t.numel for t in spec.parameters if t.dtype is DType.UINT8]
    assert held["quantized_partitions"] == sum(-(-n // 8) for n in codes)
    absmax = sum(b.numel for b in spec.buffers if b.name.endswith("absmax"))
    assert held["model_buffers_float32"] >= num_bytes(absmax, DType.FP32)


def test_the_example_job_fits_its_card():
    path = Path(__file__).parents[2] / "deepspeed_configs" / "jobs" / "llama-3-8b-qlora.yaml"
    sizing = size(read(str(path)))
    assert sizing.verdict is Verdict.FITS
    assert sizing.job.model.num_trainable == 41_943_040
    assert {f.severity for f in sizing.findings} == {Severity.NOTE}


NUMBERS = "params=6.7e9,layers=32,hidden=4096,heads=32,ffn=11008,vocab=32000"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["nf4", "nf4,double", "int8"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_numbers_are_quantized_too(how, checkpointing):
    """``check`` offers QLoRA where nothing else fits, of a model that is numbers alone as well."""
    spec = model_of(Flags(model=NUMBERS, adapter="r=8,targets=all-linear", quantization=how))
    sizing = size(make_job({"bf16": True}, spec, 2, checkpointing=checkpointing))
    plain = size(make_job({"bf16": True}, models.load(NUMBERS), 2, checkpointing=checkpointing))
    gpu = [found.peaks[Device.GPU].num_bytes for found in (sizing, plain)]
    assert 0 < gpu[0] < gpu[1]
