"""Which loss a job computes: what each holds, where that is not known, and published proof."""

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.activations import loss
from zero_sizer.cli import main
from zero_sizer.config import workload
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.capacity import Fit, fit
from zero_sizer.sizing import size
from zero_sizer.units import DType

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import throughput

B, S = 2, 1024
LLAMA_V, LLAMA_H = 128256, 4096


def _check(capsys, tmp_path, *, model="llama-3-8b", precision="bf16", **workload):
    path = tmp_path / "job.yaml"
    config = {
        "train_micro_batch_size_per_gpu": B,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 2},
    }
    if precision == "autocast":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif precision != "fp32":
        config[precision] = {"enabled": True}
    said = {"seq_len": S, "checkpointing": True, "attention": "sdpa", "sequences": "equal"}
    cluster = {"gpus_per_node": 8, "gpu": "h200-141gb", "host_memory": "2TiB"}
    job = {"model": model, "deepspeed": config, "cluster": cluster, "workload": said | workload}
    path.write_text(json.dumps(job))
    main(["check", str(path), "--format", "json"])
    answer = json.loads(capsys.readouterr().out)
    found = {f["code"]: f for f in answer["findings"]}
    return answer["phases"]["gpu"], found, answer


@pytest.mark.parametrize(
    ("kind", "precision", "forward"),
    [
        # bytes per element of the logits that the forward holds less than transformers' 10 and 8
        ("megatron", "bf16", 4),
        ("fused", "bf16", 8),
        ("fused", "autocast", 8),
        ("megatron", "fp32", 4),
        ("fused", "fp32", 4),
    ],
)
def test_forward_holds_what_the_kernel_makes(capsys, tmp_path, kind, precision, forward):
    long = {"model": "smollm2-135m", "precision": precision}
    usual, *_ = _check(capsys, tmp_path, **long)
    other, findings, _ = _check(capsys, tmp_path, **long, loss=kind)
    elements = B * S * 49152
    assert usual["forward"] - other["forward"] == forward * elements
    assert "loss-not-modelled" not in findings


def test_the_flag_wins_and_json_states_it(capsys, tmp_path):
    *_, answer = _check(capsys, tmp_path)
    assert answer["job"]["loss"] == {"value": "transformers", "origin": "the model's own"}
    *_, answer = _check(capsys, tmp_path, loss="fused")
    assert answer["job"]["loss"]["value"] == "fused"
    main(["check", str(tmp_path / "job.yaml"), "--format", "json", "--loss", "fused-linear"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["job"]["loss"] == {"value": "fused-linear", "origin": "--loss"}
    activations = next(a for a in answer["allocations"] if a["category"] == "activations")
    assert activations["keys"]["loss"]["value"] == "fused-linear"


def test_another_word_is_refused(capsys, tmp_path):
    (tmp_path / "job.yaml").write_text(
        '{"model": "gpt2", "deepspeed": {}, "workload": {"loss": "x"}}'
    )
    assert main(["check", str(tmp_path / "job.yaml")]) == 2
    assert "loss" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bert-large", "t5-3b"])
@pytest.mark.parametrize("kind", ["megatron", "fused", "fused-linear"])
def test_no_causal_loss_to_replace_is_a_doubt(capsys, tmp_path, model, kind):
    said = {"model": model, "seq_len": 500, "attention": "eager", "micro_batch": 1}
    usual, _, fits = _check(capsys, tmp_path, **said)
    other, findings, answer = _check(capsys, tmp_path, **said, loss=kind)
    assert fits["verdict"] == "fits"
    # no loss holds more than transformers'; Liger's may, where it casts the head for every chunk
    assert answer["verdict"] == ("uncertain" if kind == "fused-linear" else "fits")
    assert findings["loss-not-modelled"]["severity"] == "warning"
    assert findings["loss-not-modelled"]["direction"] == (
        "either" if kind == "fused-linear" else "save"
    )
    assert other == usual


@pytest.mark.parametrize(
    ("model", "kind", "precision"),
    [
        ("t5-3b", "fused", "fp32"),
        ("smollm2-135m", "fused-linear", "autocast"),
        ("gpt2", "transformers-16bit", "autocast"),
        ("params=7e9,layers=32,hidden=4096", "fused", "bf16"),
    ],
)
def test_nor_is_one_where_nobody_compared_it(capsys, tmp_path, model, kind, precision):
    said = {"model": model, "precision": precision, "loss": kind, "seq_len": 128}
    assert "loss-not-modelled" in _check(capsys, tmp_path, **said)[1]


@given(
    tokens=st.integers(1, 10**6),
    vocab=st.integers(2, 300_000),
    hidden=st.integers(1, 20_000),
    dtype=st.sampled_from([DType.BF16, DType.FP32]),
)
def test_no_other_loss_holds_or_moves_more_than_transformers(tokens, vocab, hidden, dtype):
    sizes = loss.Sizes(tokens=tokens, vocab=vocab, hidden=hidden, dtype=dtype, trains_head=True)
    usual = loss.of_logits(workload.TRANSFORMERS, sizes)
    for kind in (workload.MEGATRON, workload.FUSED):
        other = loss.of_logits(kind, sizes)
        assert all(a <= b for a, b in zip(other, usual, strict=True))
        assert other.forward >= other.held >= sizes.logits or kind == workload.MEGATRON
    if dtype is DType.BF16:  # in fp32 nothing is saved, and the shifted copy comes on top
        older = loss.of_logits(workload.SIXTEEN_BITS, sizes)
        assert all(a < b for a, b in zip(older, usual, strict=True))
        assert loss.moved(workload.SIXTEEN_BITS, sizes) < loss.moved(workload.TRANSFORMERS, sizes)
    assert loss.moved(workload.FUSED, sizes) < loss.moved(workload.TRANSFORMERS, sizes)
    assert loss.chunk(sizes) <= sizes.logits
    # twice as many as asked for at most, for the power of two
    assert loss.chunk(sizes) <= 2 * (sizes.inputs + vocab * dtype.itemsize)


def test_what_is_moved_is_counted_operator_by_operator():
    """One element of the logits: 36 bytes in 16 bits for transformers, 6 for one fused kernel."""
    sizes = loss.Sizes(tokens=1, vocab=1, hidden=1, dtype=DType.BF16, trains_head=True)
    fp32 = replace(sizes, dtype=DType.FP32)
    kinds = ("transformers", "megatron", "fused", "fused-linear", "transformers-16bit")
    assert [loss.moved(kind, sizes) for kind in kinds] == [36, 52, 6, 6, 22]
    assert [loss.moved(kind, fp32) for kind in kinds] == [24, 40, 12, 12, 44]
    # 16,384 tokens in 8 chunks: the 7 after the first read the weight twice and add to a gradient
    large = replace(sizes, tokens=16384, vocab=32000, hidden=4096)
    assert loss.repeated("fused-linear", large) == 7 * 4 * 32000 * 4096 * 2
    assert loss.repeated("fused", large) == 0
    assert loss.repeated("fused-linear", replace(large, hidden=0)) == 0


def test_chunks_follow_ligers_arithmetic():
    """Its comment: 16,384 tokens of 4,096 with 32,000 words make chunks of 2,048."""
    sizes = loss.Sizes(tokens=16384, vocab=32000, hidden=4096, dtype=DType.BF16, trains_head=True)
    assert loss.chunk(sizes) == 2048 * 32000 * 2
    small = replace(sizes, tokens=3, vocab=10)
    assert loss.chunk(small) == 3 * 10 * 2


def test_only_where_the_weights_are_on_the_job_is_another_loss_run(capsys, tmp_path):
    _check(capsys, tmp_path, model="gpt2", loss="fused")
    path = str(tmp_path / "job.yaml")
    assert main(["dryrun", path, "--how", "simulated"]) == 3
    assert "computes transformers' loss" in capsys.readouterr().err


@pytest.mark.slow
def test_every_published_run_with_a_fused_loss_is_predicted_to_fit():
    """llm-foundry's throughput tables: that a row is there is proof that its micro batch fits.

    The models are llm-foundry's own code, of which there is no profile: where the closed form's
    error could decide, the verdict says so, and nothing else does.
    """
    facts = throughput.read()
    verdicts = Counter()
    for row in facts["rows"]:
        job = throughput.job_of(row, facts)
        cluster = replace(job.cluster, gpu_memory=job.cluster.gpu.visible_bytes)
        assert job.workload.loss == "fused"
        sizing = size(replace(job, cluster=cluster))
        verdicts[sizing.verdict.value] += 1
        assert {r.code for r in sizing.reasons} <= {"activations-in-closed-form"}, row
        gpu, room = sizing.capacities[Device.GPU], sizing.needs[Device.GPU].room
        assert fit(sizing.peaks[Device.GPU].num_bytes, gpu, room) is Fit.YES
    assert verdicts == {"fits": 49, "uncertain": 59}
