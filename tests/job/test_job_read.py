"""A job from a file and flags: who said what, and what is refused."""

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import RATES
from zero_sizer.job import fields as stated
from zero_sizer.job import read as job
from zero_sizer.job.fields import Flags
from zero_sizer.units import GIB, TIB, parse_size

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "deepspeed_configs" / "jobs"
DEMO = str(ROOT / "deepspeed_configs" / "demo.json")
NUMBERS = "params=1e9,layers=2,hidden=64,heads=2,vocab=100"


def test_every_option_is_a_flag_and_has_a_home():
    names = {field.name for field in fields(Flags)}
    homes = {field.name for field in (*stated.CLUSTER, *stated.WORKLOAD)}
    assert names == homes - set(RATES) | {
        "model",
        "adapter",
        "quantization",
        "freeze",
        "allow_code",
        *("start", "rate", "rates", "target_days", "budget"),  # of whoever asks, not of the job
    }  # rates of links stand in a job file only
    assert {field.name for field in stated.WORKLOAD} == {
        field.name for field in fields(Workload)
    } - {"origins", "checkpointing_how"}  # checkpointing says both


def test_a_json_with_flags_is_a_job():
    read = job.read(DEMO, Flags(model=NUMBERS, gpus_per_node=8, gpu="h100-80gb", seq_len=4096))
    assert read.document.source == DEMO
    assert read.document.get("zero_optimization.stage") == 3
    assert (read.cluster.world_size, read.workload.seq_len) == (8, 4096)
    assert read.workload.origins == {"seq_len": "--seq-len"}
    assert read.cluster.origins["gpus_per_node"] == "--gpus-per-node"
    assert read.origins == {"model": "--model", "deepspeed": DEMO}


def test_the_example_with_its_own_config_file():
    path = str(JOBS / "llama-3-8b-zero3.yaml")
    read = job.read(path)
    assert read.model.num_params == 8_030_261_248
    assert read.document.get("zero_optimization.stage") == 3
    assert Path(read.document.source).samefile(DEMO)
    assert (read.cluster.nodes, read.cluster.world_size) == (4, 32)
    assert (read.cluster.host_memory, read.cluster.nvme) == (2 * TIB, 7 * 10**12)
    assert read.cluster.origins["nvme"] == f"{path}:4"
    assert (read.workload.checkpointing, read.workload.attention) == (True, "flash")


def test_the_example_with_the_config_inside_keeps_its_lines_and_numbers():
    path = str(JOBS / "one-gpu-offload.yaml")
    read = job.read(path)
    assert read.document.get("zero_optimization.reduce_bucket_size") == 500_000_000
    assert read.document.where("zero_optimization.offload_param.device") == f"{path}:13"
    assert read.document.line("optimizer") == 6
    assert read.cluster.gpu_memory < 24 * GIB


def test_the_example_with_a_hostfile_beside_it():
    read = job.read(str(JOBS / "hostfile-unequal.yaml"))
    assert (read.cluster.world_size, read.cluster.slots) == (20, (8, 8, 4))


def test_a_flag_wins_over_the_file_and_is_named():
    path = str(JOBS / "llama-3-8b-zero3.yaml")
    read = job.read(path, Flags(nodes=2, gpu_memory="40GiB", checkpointing=False, model=NUMBERS))
    assert (read.cluster.nodes, read.cluster.gpus_per_node) == (2, 8)
    assert read.cluster.gpu_memory == 40 * GIB
    assert read.cluster.origins["nodes"] == "--nodes"
    assert read.cluster.origins["gpus_per_node"] == f"{path}:4"
    assert (read.workload.checkpointing, read.origins["model"]) == (False, "--model")


def test_model_numbers_may_be_a_mapping(write):
    path = write("model: {params: 1e9, layers: 2, hidden: 64, heads: 2, vocab: 100}\ndeepspeed: {}")
    assert job.read(path).model.num_params == job.read(DEMO, Flags(model=NUMBERS)).model.num_params


def test_a_model_file_is_found_beside_the_job(write, tmp_path):
    (tmp_path / "net").mkdir()
    config = '{"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 100}'
    (tmp_path / "net" / "config.json").write_text(config)
    read = job.read(write("model: net/config.json\ndeepspeed: {}"))
    assert str(tmp_path) in read.model.origin


BASE = f"model: {NUMBERS}\ndeepspeed: {{}}\n"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BASE + "clusterx: {}", 3, "did you mean cluster?"),
        (BASE + "cluster:\n  nodesx: 2", 4, "did you mean nodes?"),
        (BASE + "cluster: {nodes: true}", 3, "not a whole number"),
        (BASE + "cluster: {inter_node_gb_per_s: 0}", 3, "not a rate between"),
        (BASE + "cluster: {matmul_tflops: fast}", 3, "'fast' is not a number"),
        (BASE + "cluster: {nodes: 2.5}", 3, "not a whole number"),
        (BASE + "cluster: {nodes: -1}", 3, "between 1 and"),
        (BASE + "cluster: {nodes: .nan}", 3, "not a whole number"),
        (BASE + "cluster: {nodes: " + "9" * 5000 + "}", 3, "no number"),
        (BASE + "cluster: {nodes: " + "9" * 400 + "}", 3, "no number"),
        (BASE + "cluster: {nodes: '2'}", 3, "not a whole number"),
        (BASE + "cluster: {nodes: 2}", 3, "--gpus-per-node"),
        (BASE + "cluster: {nodes: 1000000, gpus_per_node: 8}", 3, "more than any cluster"),
        (BASE + "cluster: {host_memory: 2TXB}", 3, "not a size"),
        ("model: some/Qwen2.5-7B-Tuned\ndeepspeed: {}", 1, "did you mean qwen2.5-7b"),
        ("model: some/Qwen2.5-7B-Tuned\ndeepspeed: {}", 1, "config.json"),
        (BASE + "cluster: {host_memory: 0}", 3, "between 1 MiB"),
        (BASE + "cluster: {host_memory: 512}", 3, "512 is 512 bytes"),
        (BASE + "cluster: {host_memory: 1.5}", 3, "not a size"),
        (BASE + "cluster: {nvme: 99999999TiB}", 3, "nvme"),
        (BASE + "cluster: {gpu: 7}", 3, "not a name"),
        (BASE + "cluster: {gpu: a100}", 3, "a100-80gb"),
        (BASE + "cluster: {hostfile: nowhere}", None, "nowhere: cannot be read"),
        (BASE + "cluster: 8", 3, "not a mapping"),
        (BASE + "workload: {attention: flsh}", 3, "flash, sdpa, eager"),
        (BASE + "workload: {checkpointing: 1}", 3, "true or false"),
        (BASE + "workload: {checkpointing: every-x}", 3, "none of every-K"),
        (BASE + "workload: {seq_len: 1000000000000}", 3, "between"),
        (BASE + "workload: {seq_len: 1, seq_len: 2}", 3, "twice"),
        ("deepspeed: {}", None, "no model"),
        ("model: 8\ndeepspeed: {}", 1, "model:"),
        ("model: no-such-model\ndeepspeed: {}", 1, "no-such-model"),
        (f"model: {NUMBERS}", None, "no DeepSpeed config"),
        (f"model: {NUMBERS}\ndeepspeed: nowhere.json", 2, "nowhere.json"),
        (f"model: {NUMBERS}\ndeepspeed: 3", 2, "not a path or a mapping"),
        ("distributed_type: DEEPSPEED\nnum_machines: 2", None, "accelerate"),
        ("deepspeed_config: {deepspeed_config_file: ds.json}", 1, "no file 'ds.json'"),
        ("- a", None, "no mapping"),
        ("", None, "no mapping"),
        ("a: [1", 1, "not YAML"),
        ("[" * 1500, None, "nested too deeply"),
        ("a: &a [*a]", 1, "nested too deeply"),
        ("a: " + "[" * 70 + "]" * 70, 1, "nested too deeply"),
        ("a: !!python/object/apply:os.getcwd []", 1, "tag"),
        ("a: \x07", None, "not YAML"),
        ('a: "\\ud800"', 1, "half of an escaped character"),
        ("x: &x {a: 1}\ny: {<<: *x}", 2, "merge keys"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(write, text, line, words):
    path = write(text)
    with pytest.raises(InputError) as caught:
        job.read(path)
    shown = str(caught.value)
    assert words in shown
    assert shown.isprintable()
    assert len(shown) < 400
    if line is not None:
        assert caught.value.where == f"{path}:{line}"


def test_aliases_cannot_multiply_without_end(write):
    bomb = "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 20))
    with pytest.raises(InputError, match="too large"):
        job.read(write(f"k0: &k0 [1]\n{bomb}"))


@pytest.mark.parametrize("flags", [{"nodes": 0}, {"gpu_memory": "lots"}, {"attention": "best"}])
def test_a_bad_flag_is_named(flags):
    with pytest.raises(InputError) as caught:
        job.read(DEMO, Flags(model=NUMBERS, **flags))
    assert caught.value.where == "--" + next(iter(flags)).replace("_", "-")


def test_sizes_are_read_as_free_and_shops_write_them():
    """``free -h`` writes 252Gi for what older ones call 252G (LlamaFactory#4629 states it so)."""
    of = {"252G": 252 * GIB, "252Gi": 252 * GIB, "1T": 1024 * GIB, "512m": GIB // 2,
          "80GB": 80 * 10**9, "1.5 TiB": 1536 * GIB}  # fmt: skip
    assert {text: parse_size(text) for text in of} == of


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_what_is_no_file_is_one_line(tmp_path, name):
    folder = tmp_path / "job.yaml"
    folder.mkdir()
    with pytest.raises(InputError) as caught:
        job.read(str(folder / name) if name != "." else str(folder), Flags(model=NUMBERS))
    assert "\n" not in str(caught.value)


EXAMPLE = (JOBS / "one-gpu-offload.yaml").read_text()


@given(
    at=st.integers(0, len(EXAMPLE)),
    cut=st.integers(0, 40),
    put=st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["&a", "*a", "!!int ", "{", "]", ": ", "\n  ", "\t", "-", "1e999", "0o7", "~"]
        ),
    ),
)
def test_no_edit_of_a_job_ends_in_a_traceback(tmp_path_factory, at, cut, put):
    path = tmp_path_factory.getbasetemp() / "edited.yaml"
    path.write_bytes((EXAMPLE[:at] + put + EXAMPLE[at + cut :]).encode("utf-8", "surrogatepass"))
    try:
        read = job.read(str(path), Flags(model=NUMBERS))
    except InputError as error:
        line = str(error)
    else:
        line = ""
        assert read.cluster.world_size >= 1
    assert "\n" not in line
