"""Models given as numbers, or as the headers of safetensors files."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer import models
from zero_sizer.errors import InputError, ZeroSizerError
from zero_sizer.models.sources.safetensors import load_safetensors
from zero_sizer.units import DType

LLAMA_7B = "layers=32,hidden=4096,heads=32,kv_heads=32,ffn=11008,vocab=32000"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 16,
}


# Numbers


def test_numbers_of_llama_2_7b_give_its_matrices():
    spec = models.load(f"params=6738415616,{LLAMA_7B}")
    real = models.load("llama-2-7b")
    assert sorted(t.shape for t in spec.parameters) == sorted(t.shape for t in real.parameters)
    assert not spec.exact_tensors
    assert real.exact_tensors


@given(
    params=st.integers(2 * 10**7, 10**12),
    layers=st.integers(1, 40),
    hidden=st.sampled_from([1, 7, 64, 256]),
    ffn=st.none() | st.integers(1, 1000),
    vocab=st.none() | st.integers(1, 5000),
)
def test_numbers_always_sum_to_params(params, layers, hidden, ffn, vocab):
    text = f"params={params},layers={layers},hidden={hidden}"
    text += f",ffn={ffn}" if ffn else ""
    text += f",vocab={vocab}" if vocab else ""
    spec = models.load(text)
    assert spec.num_params == params
    assert all(min(t.shape) > 0 for t in spec.parameters)
    assert spec.arch.num_layers == layers


@pytest.mark.parametrize(
    "text",
    [
        "params=7e9",
        "params=7e9,layers=32",
        "params=7e9,layers=32,hiddn=4096",
        "params=nan,layers=1,hidden=8",
        "params=inf,layers=1,hidden=8",
        "params=-5,layers=1,hidden=8",
        "params=1e30,layers=1,hidden=8",
        "params=1e6,layers=1.5,hidden=8",
        "params=1e6,layers=0,hidden=8",
        "params=1e6,layers=32,hidden=4096",
        "params=1e9,params=1e9,layers=1,hidden=8",
        "params=1e9,layers=1,hidden=9,heads=2",
        "params=1e9,layers=1,hidden=8,heads=4,kv_heads=3",
        "params=seven,layers=1,hidden=8",
        "params=1e9,layers=1,hidden=8,",
        "params=,layers=1,hidden=8",
    ],
)
def test_wrong_numbers_are_one_line(text):
    with pytest.raises(InputError) as error:
        models.load(text)
    assert "\n" not in str(error.value)


# Safetensors


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def test_a_safetensors_header_gives_shapes_and_dtypes(tmp_path):
    path = tmp_path / "model.safetensors"
    shapes = {"l.10.w": ("BF16", [3, 4]), "l.2.w": ("BF16", [5]), "scale": ("F32", [])}
    write_safetensors(path, shapes | {"ids": ("I64", [7])})
    spec = models.load(str(path))
    assert [(t.name, t.shape) for t in spec.parameters] == [
        ("ids", (7,)),
        ("l.2.w", (5,)),
        ("l.10.w", (3, 4)),
        ("scale", ()),
    ]
    dtypes = {t.name: (t.dtype, t.trainable) for t in spec.parameters}
    assert dtypes["l.2.w"] == (None, True)  # the usual one
    assert dtypes["scale"] == (DType.FP32, True)
    assert dtypes["ids"] == (DType.INT64, False)
    assert spec.hf_config["dtype"] == "bfloat16"


def test_an_index_joins_its_shards_and_the_config_beside_it(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", {"w.0": ("F16", [8])})
    write_safetensors(tmp_path / "b.safetensors", {"w.1": ("F16", [2, 8])})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w.0": "a.safetensors", "w.1": "b.safetensors"}}))
    assert models.load(str(tmp_path)).num_params == 24  # a folder without config.json
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    spec = models.load(str(index))
    assert spec.num_params == 24
    assert spec.arch.hidden == spec.hf_config["hidden_size"] == 8


def test_the_safetensors_library_writes_what_we_read(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5))
    library.save_file(module.state_dict(), tmp_path / "model.safetensors")
    spec = load_safetensors(tmp_path / "model.safetensors")
    want = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert {t.name: t.shape for t in spec.parameters} == want


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 50) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"{,}",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 38) + b'{"a": {"dtype": "F32", "shape": [-1]}}',
        struct.pack("<Q", 38) + b'{"a": {"dtype": "F3", "shape": [1]}}  ',
        struct.pack("<Q", 10**5) + b"[" * 10**5,
    ],
)
def test_broken_safetensors_are_one_line(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ZeroSizerError) as error:
        models.load(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"weight_map": {}},
        {"weight_map": []},
        {"weight_map": {"w": "gone.safetensors"}},
        {"weight_map": {"w": "../model.safetensors"}},
        {"weight_map": {"w": "/etc/passwd"}},
        {"weight_map": {"w": 3}},
    ],
)
def test_a_broken_index_is_one_line(index, tmp_path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(InputError):
        models.load(str(path))


@pytest.mark.parametrize(
    ("name", "bundled"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"),
        ("Qwen/Qwen3-8B-Base", "qwen3-8b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral-7b-v0.3"),
        ("google/gemma-2-9b-it", "gemma-2-9b"),
        ("EleutherAI/pythia-6.9b-deduped", "pythia-6.9b"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("llama-3.1-8b-instruct", "llama-3.1-8b"),
    ],
)
def test_a_tuned_model_has_the_shape_of_its_base(name, bundled):
    spec = models.load(name)
    assert spec.parameters == models.load(bundled).parameters
    assert spec.origin.endswith(f"whose shape {name} has")


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-7B-Instruct-AWQ",
        "someone/Qwen2.5-7B-Instruct",
        "instruct",
        "a/b/c-instruct",
    ],
)
def test_what_may_have_another_shape_is_not_guessed(name):
    with pytest.raises(InputError):
        models.load(name)
