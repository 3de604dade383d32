"""Models of which too little is known to count activations: no "fits" from a sum without them."""

import json
from pathlib import Path

import pytest
from support.advise_jobs import job_on
from support.plans import make_job

from zero_sizer.activations.block_sizes import layer_elements
from zero_sizer.activations.execution import NEVER_RUNS, forward_modules
from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import choose
from zero_sizer.cli import main
from zero_sizer.findings import ACTIVATIONS_UNKNOWN, CLOSED_FORM, Severity
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.sizing import Verdict, size
from zero_sizer.speed.work import work_of
from zero_sizer.units import DType, num_bytes

DEMO = str(Path(__file__).parents[2] / "deepspeed_configs" / "demo.json")

WIDTHS = "layers=32,hidden=4096,heads=32,kv_heads=32,ffn=11008,vocab=32000"
LLAMA = f"params=6.7e9,{WIDTHS}"
CONFIG = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}}


@pytest.fixture
def bare(tmp_path):
    """A safetensors file without a config.json: shapes, no widths."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [64, 64], "data_offsets": [0, 8192]}})
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8192))
    return str(path)


def _flags(model, **more):
    return Flags(
        model=model,
        nodes=1,
        gpus_per_node=8,
        gpu="h200-141gb",
        host_memory="1TiB",
        seq_len=512,
        **more,
    )


def _unknown(model, **flags):
    config = {**CONFIG, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
    sizing = size(read.without_config(config, _flags(model, **flags)))
    found = [f for f in sizing.findings if f.code == ACTIVATIONS_UNKNOWN]
    assert all(f.severity is Severity.WARNING for f in found)
    return " ".join(f.message for f in found), sizing.verdict


def test_shapes_alone_do_not_fit_for_certain(bare):
    message, verdict = _unknown(bare)
    assert "activations" in message
    assert verdict is Verdict.UNCERTAIN


@pytest.mark.parametrize(
    ("model", "attention", "missing"),
    [
        ("params=1e9,layers=2,hidden=4096", "flash", ["logits"]),
        ("params=1e9,layers=2,hidden=4096,vocab=100", "eager", ["scores"]),
        ("params=1e9,layers=2,hidden=4096", "eager", ["logits", "scores"]),
    ],
)
def test_numbers_say_which_of_them_is_missing(model, attention, missing):
    message, verdict = _unknown(model, attention=attention)
    assert all(word in message for word in missing)
    assert verdict is Verdict.UNCERTAIN


@pytest.mark.parametrize(
    ("model", "attention"),
    [
        ("params=1e9,layers=2,hidden=4096,vocab=100", "flash"),
        ("params=1e9,layers=2,hidden=4096,heads=32,vocab=100", "eager"),
        ("gpt2", "eager"),
    ],
)
def test_known_widths_are_no_reason_to_doubt(model, attention):
    assert _unknown(model, attention=attention) == ("", Verdict.FITS)


def test_the_projections_width_does_not_depend_on_the_number_of_heads():
    known = layer_elements(Architecture(hidden=4096, heads=32), 2048)
    unknown = layer_elements(Architecture(hidden=4096), 2048)
    assert unknown.linear == known.linear
    assert known.scores == 32 * 2048


def test_no_micro_batch_is_recommended_where_none_can_be_judged(bare, capsys):
    choice = choose(job_on(bare, "a100-80gb"))
    assert isinstance(choice.winner, Candidate)
    assert {plan.micro_batch for plan in choice.ranked} == {1}
    flags = ["--model", bare, "--gpu", "a100-80gb", "--seq-len", "2048", "--host-memory", "1TiB"]
    for command in (["choose"], ["size", "--max-nodes", "1"]):
        assert main([*command, *flags]) == 3
        assert ACTIVATIONS_UNKNOWN in capsys.readouterr().out
        assert main([*command, *flags, "--format", "json"]) == 3
        answer = json.loads(capsys.readouterr().out)
        assert ACTIVATIONS_UNKNOWN in {warning["code"] for warning in answer["warnings"]}


@pytest.mark.slow
def test_a_fix_is_certain_only_where_activations_are_known(capsys):
    flags = ["--gpu", "a100-80gb", "--gpus-per-node", "8", "--seq-len", "2048"]
    for numbers, certain in (("", False), (",heads=32,vocab=32000", True)):
        asked = ["check", DEMO, "--model", f"params=1e11,layers=80,hidden=8192{numbers}", *flags]
        assert main([*asked, "--format", "json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert {fix["certain"] for fix in answer["fixes"]} == {certain}
        main(asked)
        assert ("it would fit with" if certain else "it may fit with") in capsys.readouterr().out


@pytest.mark.parametrize("how", ["nf4", "nf4,double", "int8"])
@pytest.mark.parametrize("adapter", [None, "r=16,targets=all-linear"])
def test_numbers_are_packed_as_the_model_that_they_describe(how, adapter):
    flags = {"quantization": how, "adapter": adapter}
    numbers, llama = (read.model_of(Flags(model=m, **flags)) for m in (LLAMA, "llama-2-7b"))
    assert _num_bytes(numbers) == pytest.approx(_num_bytes(llama), rel=0.01)
    assert numbers.num_params == pytest.approx(llama.num_params, rel=0.01)


def _num_bytes(spec):
    tensors = (*spec.parameters, *spec.buffers)
    return sum(num_bytes(t.numel, t.dtype or DType.BF16) for t in tensors)


def test_numbers_compute_as_much_as_the_model_that_they_describe():
    numbers, llama = (work_of(read.model_of(Flags(model=m))) for m in (LLAMA, "llama-2-7b"))
    assert numbers.block_flops == pytest.approx(llama.block_flops, rel=0.01)
    assert numbers.operand_elements == pytest.approx(llama.operand_elements, rel=0.01)


@pytest.mark.parametrize("name", ["glm-5", "granite-4.0-h-tiny"])
def test_layers_that_no_closed_form_knows_are_no_ground_for_a_verdict(name):
    """States along the sequence, and scores of an indexer, are only in a profile."""
    job = read.without_config(
        CONFIG, Flags(model=name, nodes=64, gpus_per_node=8, gpu="b300-288gb")
    )
    found = size(job)
    (finding,) = [f for f in found.findings if f.code == CLOSED_FORM]
    assert finding.severity is Severity.WARNING
    assert finding.num_bytes is None
    assert found.verdict is not Verdict.FITS


def test_torchs_attention_has_no_module_of_its_own_for_its_output():
    """SigLIP 2's NaFlex towers pool by it: DeepSpeed gathers ``out_proj`` with the attention."""
    kinds = {"in_proj_weight": "MultiheadAttention", "out_proj.weight": NEVER_RUNS}
    pooled = [Tensor(f"head.attention.{n}", (64, 64), module_type=k) for n, k in kinds.items()]
    rest = [Tensor("head.norm.weight", (64,), module_type="LayerNorm")]
    spec = ModelSpec(
        name="pooled", origin="test", parameters=(*pooled, *rest), arch=Architecture(hidden=64)
    )
    job = make_job({**CONFIG, "zero_optimization": {"stage": 3}}, spec, 2)
    assert size(job).plan is not None
    assert forward_modules(spec) == ((0, 1), (2,))
