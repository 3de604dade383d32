"""Files that others wrote to harm: one line each, in bounded work, and nothing in them runs."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest
from support.fuzz_samples import ADAPTER, LLAMA, RECORDING, SAMPLE

from zero_sizer import cli
from zero_sizer.errors import InputError
from zero_sizer.models import load

CLUSTER = ["--gpus-per-node", "8", "--gpu", "h100-80gb"]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Runs a command on files of the given contents; (exit code, answer, error)."""
    monkeypatch.chdir(tmp_path)

    def runner(files, *arguments):
        for name, content in files.items():
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            (tmp_path / name).write_bytes(text)
        code = cli.main([*arguments])
        return code, *capsys.readouterr()

    return runner


def refused(run, says, files, *arguments):
    code, out, err = run(files, *arguments)
    assert code == 2, (code, out[:300], err)
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


PATTERNS = [
    ({"target_modules": "(" * 9000 + "a" + ")" * 9000}, "longer than 10,000 characters"),
    ({"target_modules": "(" * 3000 + "a" + ")" * 3000}, "nested too deeply"),
    ({"target_modules": "a{99999999999999999999}"}, "cannot be read"),
    ({"layers_pattern": ["(?i)layers"]}, "no regular expression: global flags"),
    ({"layers_pattern": ["(layers)"]}, "a group of its own"),
    ({"layers_pattern": "q_proj$|"}, "a group of its own"),
    ({"modules_to_save": ["(?i)lm_head"]}, "no regular expression"),
    ({"modules_to_save": ["x"] * 3, "rank_pattern": {"(": 4}}, "no regular expression"),
    ({"target_modules": [f"m{i}" for i in range(20_000)]}, "holds 20,000 entries"),
    ({"target_modules": r"(q_proj)\1"}, "cannot be matched in bounded time"),
]


@pytest.mark.parametrize(("fields", "says"), PATTERNS, ids=[says for _, says in PATTERNS])
def test_a_pattern_that_is_none_is_one_line(run, fields, says):
    adapter = {"peft_type": "LORA", "target_modules": ["q_proj"], "layers_to_transform": [0]}
    if isinstance(fields.get("target_modules"), str):
        del adapter["layers_to_transform"]
    files = {"ds.json": SAMPLE, "config.json": LLAMA, "a.json": {**adapter, **fields}}
    refused(run, says, files, "check", "ds.json", "--model", "config.json", "--adapter", "a.json")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": "(([a-z.0-9_]+)+)+X"},
        {"target_modules": ["q_proj"], "exclude_modules": "(.*a*)*(.*)*(.*)*(.*)*X"},
        {"target_modules": ["q_proj"], "rank_pattern": {"(.*)*(.*)*(.*)*(.*)*(.*)*x": 4}},
        {"target_modules": ["q_proj"], "modules_to_save": ["(.*.*)*(.*)*(.*)*x"]},
    ],
)
def test_a_pattern_with_endless_ways_is_answered(run, fields):
    files = {"ds.json": SAMPLE, "a.json": {"peft_type": "LORA", **fields}}
    before = time.process_time()
    code, _, _ = run(
        files, "check", "ds.json", "--model", "qwen2.5-7b", "--adapter", "a.json", *CLUSTER
    )
    assert code in (0, 1, 2, 3)
    assert time.process_time() - before < 20  # a minute's worth of ways would be 2**60 of them


def test_names_of_modules_to_skip_are_bounded_patterns_too(run):
    for name, says in (("(?i)lm_head", "no regular expression"), ("(" * 20_000, "is longer than")):
        how = {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "llm_int8_skip_modules": [name],
        }
        files = {"ds.json": SAMPLE, "config.json": {**LLAMA, "quantization_config": how}}
        refused(run, says, files, "check", "ds.json", "--model", "config.json")


def test_many_targets_that_are_one_are_one(run):
    files = {"ds.json": SAMPLE, "a.json": {"r": 8, "target_modules": ["q_proj"] * 100_000}}
    code, out, _ = run(files, "check", "ds.json", "--model", "qwen2.5-7b", "--adapter", "a.json")
    assert code == 3
    assert "LoRA r=8 on q_proj " in out


def test_a_long_list_of_targets_is_no_path(run):
    names = "+".join(f"layers.{i}.self_attn.q_proj" for i in range(40))
    code, _, err = run({"ds.json": SAMPLE}, "check", "ds.json", "--model", "qwen2.5-7b",
                       "--adapter", f"r=8,targets={names}")  # fmt: skip
    assert (code, err) == (3, "")


@pytest.mark.parametrize("key", ["gradient_accumulation_steps", "train_micro_batch_size_per_gpu"])
@pytest.mark.parametrize("value", ["1e308", "1e31", "9" * 400])
def test_a_number_that_measures_nothing_is_refused(run, key, value):
    text = json.dumps({**SAMPLE, key: 77777}).replace("77777", value)
    refused(run, "too large", {"ds.json": text.encode()}, "check", "ds.json", "--model", "gpt2")
    job = json.dumps({"model": "gpt2", "deepspeed": {key: 77777}}).replace("77777", value)
    refused(run, "no number", {"job.yaml": job.encode()}, "check", "job.yaml")


@pytest.mark.parametrize(
    ("way", "value", "says"),
    [
        (("phases", 0, "device", "gpu"), 5, "device.gpu is 5"),
        (("phases", 0, "device", "gpu", "allocated"), -5, "gpu.allocated is -5"),
        (("phases", 0, "device", "gpu", "allocated"), float("nan"), "NaN is no JSON"),
        (("phases", 0, "device", "gpu", "allocated"), True, "gpu.allocated is True"),
        (("phases", 0, "live", 0, "category"), "zzz", "category is 'zzz'"),
        (("how",), ["x"], "how is ['x']"),
        (("job",), 7, "job is 7"),
        (("job", "local_world_size"), 0, "local_world_size is 0"),
        (("job", "layers"), 2.5, "job.layers is 2.5"),
        (("world_size",), "x", "world_size is 'x'"),
        (("world_size",), 10**12, "world_size is"),
        (("rank",), 99, "ranks are [99] of 8"),
        (("phases",), [], "no phases"),
    ],
)
def test_a_recording_is_checked_as_any_file(run, way, value, says):
    recording = json.loads(json.dumps(RECORDING))
    node = recording
    for key in way[:-1]:
        node = node[key]
    node[way[-1]] = value
    files = {"ds.json": SAMPLE, "r.json": recording}
    refused(run, says, files, "crosscheck", "ds.json", "--model", "gpt2", "--recording", "r.json")


def test_names_of_tensors_are_bounded(run):
    header = json.dumps(
        {f"a.{'9' * 5000}.b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    )
    data = struct.pack("<Q", len(header)) + header.encode()
    refused(run, "is no tensor's", {"ds.json": SAMPLE, "m.safetensors": data},
            "check", "ds.json", "--model", "m.safetensors")  # fmt: skip


def test_more_layers_than_any_model_has_are_refused(run):
    files = {"ds.json": SAMPLE, "config.json": {**LLAMA, "num_hidden_layers": 10_000}}
    refused(run, "from 1 to 1,024", files, "check", "ds.json", "--model", "config.json")
    numbers = "params=7e9,layers=10000,hidden=64"
    refused(run, "from 1 to 1,024", files, "check", "ds.json", "--model", numbers)


def test_a_file_of_another_is_not_shown(run):
    files = {
        "secret": b"root:$6$hash:19000:0:99999:7:::\n",
        "job.yaml": b"model: gpt2\ndeepspeed: {}\ncluster: {hostfile: secret}\n",
    }
    code, out, err = run(files, "check", "job.yaml")
    assert code == 2
    assert "hash" not in out + err
    assert "secret:1: not a hostfile entry" in err


@pytest.mark.parametrize("what", ["ds.json", "config.json", "a.json", "hosts", "r.json", "j.yaml"])
def test_a_pipe_is_refused_at_once(run, tmp_path, what):
    files = {"ds.json": SAMPLE, "config.json": LLAMA, "a.json": ADAPTER, "hosts": b"w slots=8",
             "r.json": RECORDING}  # fmt: skip
    os.mkfifo(tmp_path / what)
    files.pop(what, None)
    command = ["crosscheck", "ds.json", "--recording", "r.json"] if what == "r.json" else [
        "check", "j.yaml" if what == "j.yaml" else "ds.json"]  # fmt: skip
    command += ["--model", "config.json"] if what != "j.yaml" else []
    command += ["--adapter", "a.json"] if what == "a.json" else []
    command += ["--hostfile", "hosts"] if what == "hosts" else []
    refused(run, "a pipe or a device", files, *command)


def test_a_job_file_runs_no_code_unless_asked(run, tmp_path, monkeypatch):
    (tmp_path / "harm.py").write_text("open('ran', 'w').close()\ndef make():\n    raise OSError\n")
    files = {"job.yaml": b"model: harm:make\ndeepspeed: {}\n"}
    refused(run, "a file does not get to name", files, "check", "job.yaml")
    assert not (tmp_path / "ran").exists()
    code, _, err = run(files, "check", "job.yaml", "--allow-code")
    assert code in (2, 3)
    assert "a file does not get to name" not in err


def test_a_mapping_of_numbers_in_a_job_file_is_of_numbers(run):
    for item in ('"7e9"', "true", "[1]"):
        text = f"model: {{params: {item}, layers: 2, hidden: 64}}\ndeepspeed: {{}}\n"
        refused(run, "is not a number", {"job.yaml": text.encode()}, "check", "job.yaml")


@pytest.mark.slow
def test_the_hub_is_not_asked_whatever_a_config_names(tmp_path):
    """``backbone: org/name`` makes transformers look for weights; no socket may be opened."""
    pytest.importorskip("transformers")
    fields = {
        "model_type": "dpt",
        "architectures": ["DPTForDepthEstimation"],
        "hidden_size": 64,
        "backbone": "facebook/dinov2-base",
        "use_pretrained_backbone": True,
        "auto_map": {"AutoModel": "harm.Model"},
        "attn_implementation": "org/kernel",
    }
    (tmp_path / "config.json").write_text(json.dumps(fields))
    program = (
        "import socket, sys\n"
        "def refuse(*a, **k): print('asked', a); raise OSError\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "from zero_sizer.models import load\n"
        "try: load('config.json')\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    environment = {k: v for k, v in os.environ.items() if "OFFLINE" not in k}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout in ("InputError\n", "")


def test_what_runs_or_fetches_is_not_handed_to_transformers():
    from zero_sizer.models.sources.untrusted import harmless

    fields = {"auto_map": {}, "text_config": {"auto_map": {}, "attn_implementation": "org/k",
              "hidden_size": 8}, "vision": [{"trust_remote_code": True}]}  # fmt: skip
    assert harmless(fields, "x") == {"text_config": {"hidden_size": 8}, "vision": [{}]}
    for bad in ({"num_layers": 2000}, {"a": {"depth": 10**6}}, {"width": 10**12}):
        with pytest.raises(InputError, match="above"):
            harmless(bad, "x")


def test_hostile_names_come_out_as_escapes(run):
    evil = "\x1b[31mEVIL\nline2\u202e\ud800" + "x" * 100_000
    files = {"ds.json": SAMPLE, "config.json": {**LLAMA, "_name_or_path": evil}}
    for extra in ([], ["--format", "json"], ["--timeline"]):
        code, out, err = run(files, "check", "ds.json", "--model", "config.json", *extra)
        assert (code, err) == (3, "")
        assert "\\u001b[31mEVIL line2\\u202e\\ud800" in out
        assert not set("\x1b\u202e\ud800") & set(out)
        assert max(map(len, out.splitlines())) < 4_100
    assert load("gpt2").name == "gpt2"
