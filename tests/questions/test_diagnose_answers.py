"""A log beside the prediction, through the command line and in Python."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import zero_sizer
from zero_sizer import cli
from zero_sizer.schemas import answer_schema
from zero_sizer.units import GIB, MIB, format_gib

SHAPES = json.loads((Path(__file__).parents[1] / "data" / "failure_logs.json").read_text())
CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "train_micro_batch_size_per_gpu": 8,
    "zero_optimization": {"stage": 2},
}
JOB = ("--model", "llama-3.2-3b", "--gpu", "a100-40gb", "--gpus-per-node", "2", "--seq-len", "2048")
JOB = (*JOB, "--checkpointing", "--attention", "sdpa", "--host-memory", "200GiB")
MESSAGE = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {requested}. GPU 0 has a total "
    "capacity of {total} of which 1.00 GiB is free. Including non-PyTorch memory, this process has "
    "38.00 GiB memory in use. Of the allocated memory {allocated} is allocated by PyTorch, and "
    "{idle} is reserved by PyTorch but unallocated."
)


@pytest.fixture
def ask(tmp_path, capsys):
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))

    def asked(text, *arguments, config=True):
        path = tmp_path / "train.log"
        path.write_text(text)
        job = [str(tmp_path / "ds.json"), *JOB] if config else []
        code = cli.main(["diagnose", str(path), *job, *arguments])
        return code, capsys.readouterr().out

    return asked


def answer(ask, text, **more):
    code, out = ask(text, "--format", "json", **more)
    return code, json.loads(out)


def printed(requested, allocated=30 * GIB, idle=0, total=40 * GIB):
    sizes = {"requested": requested, "allocated": allocated, "idle": idle, "total": total}
    return MESSAGE.format(**{name: format_gib(size) for name, size in sizes.items()})


@pytest.mark.slow
def test_a_request_is_named_by_its_size(ask):
    predicted = zero_sizer.check(CONFIG, **keywords()).to_dict()
    large = [a for a in predicted["allocations"] if a["device"] == "gpu"]
    (flat,) = (a for a in large if a["name"] == "bit16_groups_flat")
    segment = -(-flat["num_bytes"] // (2 * MIB)) * 2 * MIB  # as PyTorch prints it
    _, found = answer(ask, printed(segment))
    same = {a["name"] for a in large if abs(a["num_bytes"] - flat["num_bytes"]) < 2 * MIB}
    assert flat["name"] in found["asked_for"]
    assert set(found["asked_for"]) <= same | set(found["asked_for"][:1])


def keywords():
    return {
        "model": "llama-3.2-3b",
        "gpu": "a100-40gb",
        "gpus_per_node": 2,
        "seq_len": 2048,
        "checkpointing": True,
        "attention": "sdpa",
        "host_memory": "200GiB",
    }


def test_the_phase_s_prediction_stands_beside_the_log(ask):
    backward = next(s for s in SHAPES if s["id"] == "torch-1.10-backward")
    _, found = answer(ask, "\n".join(backward["lines"]))
    predicted = zero_sizer.check(CONFIG, **keywords()).to_dict()
    assert found["cause"]["phase"] == "backward"
    assert found["predicted_bytes"] == predicted["phases"]["gpu"]["backward"]
    assert found["verdict"] == predicted["verdict"]


def test_every_change_is_one_that_check_confirms(ask):
    """Also where the prediction says that the job fits: each brings the peak down."""
    for size in (1 * GIB, 30 * GIB):
        _, found = answer(ask, printed(size))
        assert found["fixes"]
        peak = zero_sizer.check(CONFIG, **keywords()).devices["gpu"].peak_bytes
        for fix in found["fixes"]:
            assert fix["peak_bytes"]["gpu"] < peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "code"),
    [
        (printed(1 * GIB, idle=3 * GIB), "fragmentation"),
        (printed(1 * GIB, allocated=90 * GIB), "more-than-predicted"),
        ("Cuda failure 'out of memory'", "outside-of-pytorch"),
        ("exits with return code = -9", "killed"),
        ("No space left on device", "disk-full"),
        ("insufficient shared memory (shm)", "shared-memory"),
        ("RuntimeError: cudaHostAlloc failed", "page-locked-memory"),
    ],
)
def test_causes_are_told(ask, text, code):
    exit_code, found = answer(ask, text)
    assert exit_code == 1
    assert code in [cause["code"] for cause in found["causes"]]


def test_a_log_alone_is_read_too(ask):
    code, text = ask(printed(2 * GIB), config=False)
    assert code == 1
    assert text.startswith("GPU OUT OF MEMORY")
    assert "2.00 GiB" in text


def test_a_log_without_a_failure_is_no_success(ask):
    code, text = ask("step 10 loss 2.1\n")
    assert code == 3
    assert text.startswith("NOTHING FOUND")


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["id"])
def test_every_answer_is_what_its_schema_says(ask, shape):
    code, found = answer(ask, "\n".join(shape["lines"]))
    assert code == (1 if shape["expect"]["kind"] else 3)
    assert list(Draft202012Validator(answer_schema("diagnose")).iter_errors(found)) == []


def test_python_asks_the_same(ask, tmp_path):
    _, found = answer(ask, printed(2 * GIB))
    path = tmp_path / "train.log"
    asked = zero_sizer.diagnose(path, str(tmp_path / "ds.json"), **keywords())
    assert asked.to_dict() == found
    assert asked.cause.line == 1
    with pytest.raises(zero_sizer.JobError):
        zero_sizer.diagnose(tmp_path / "none.log")


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe" * 1000, b"a" * 10**6, b"\r\n" * 10_000])
def test_what_is_no_log_is_read_quietly(tmp_path, capsys, content):
    path = tmp_path / "odd"
    path.write_bytes(content)
    assert cli.main(["diagnose", str(path)]) == 3
    assert cli.main(["diagnose", str(tmp_path)]) == 2
    capsys.readouterr()


def test_a_public_report_is_explained(tmp_path, capsys):
    """LLaMA-Factory's issue 2959: Qwen1.5-72B, stage 3, two nodes of eight A800 with 80 GB."""
    model = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 8192,
        "intermediate_size": 24576,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "vocab_size": 152064,
        "torch_dtype": "bfloat16",
    }
    config = {
        "fp16": {"enabled": True},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 4,
        "zero_optimization": {"stage": 3, "overlap_comm": True, "sub_group_size": 1e9},
    }
    for name, document in (("config.json", model), ("ds.json", config)):
        (tmp_path / name).write_text(json.dumps(document))
    (tmp_path / "log").write_text(
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 16.83 GiB. GPU 0 has a "
        "total capacity of 79.33 GiB of which 10.31 GiB is free"
    )
    said = ("--model", str(tmp_path / "config.json"), "--gpu", "a100-80gb", "--nodes", "2")
    said = (*said, "--gpus-per-node", "8", "--seq-len", "1024", "--checkpointing", "--format")
    files = (str(tmp_path / "log"), str(tmp_path / "ds.json"))
    assert cli.main(["diagnose", *files, *said, "json", "--attention", "sdpa"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found["asked_for"]) == {"master_weights", "exp_avg", "exp_avg_sq"}
    assert found["verdict"] == "does_not_fit"
