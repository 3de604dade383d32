"""Hugging Face configs that are wrong, unknown, or bring code of their own."""

import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.model_configs import SPACES, random_config

from zero_sizer import models
from zero_sizer.errors import InputError, UnsupportedError, ZeroSizerError
from zero_sizer.models.spec import ModelSpec

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 16,
}


def load_config(folder: Path, config: object) -> ModelSpec:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return models.load(str(path))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"hidden_size": -8}, "hidden_size is -8"),
        ({"hidden_size": "8"}, "hidden_size is '8'"),
        ({"hidden_size": 8.0}, "hidden_size is 8.0"),
        ({"hidden_size": float("nan")}, "hidden_size is nan"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 10**30}, "hidden_size is 1000"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 9}, "not a multiple"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"num_key_value_heads": 7}, "num_key_value_heads 7"),
        ({"attention_bias": 1}, "attention_bias is 1, not true or false"),
        ({"hidden_act": "sillu"}, "did you mean silu"),
        ({"pad_token_id": 16}, "pad_token_id 16 is outside vocab_size 16"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"model_type": 3}, "model_type is 3"),
        ({"model_type": None}, "model_type is None"),
        ({"head_dim": 7}, "odd"),
    ],
)
def test_wrong_config_values_name_file_and_key(change, part, tmp_path):
    with pytest.raises(InputError) as error:
        load_config(tmp_path, LLAMA | change)
    assert str(error.value).startswith(str(tmp_path / "config.json"))
    assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"\x00\xff\xfe", b"null", b"[" * 10**5, b'{"a": 1' + b"0" * 5000 + b"}"],
)
def test_unreadable_configs_are_one_line(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        models.load(str(path))
    assert "\n" not in str(error.value)


def test_a_deepspeed_config_is_recognised(tmp_path):
    with pytest.raises(InputError) as error:
        load_config(tmp_path, {"zero_optimization": {"stage": 3}})
    assert "DeepSpeed config" in error.value.remedy


def test_an_empty_folder_and_a_missing_file_are_input_errors(tmp_path):
    for reference in (str(tmp_path), str(tmp_path / "gone.json")):
        with pytest.raises(InputError):
            models.load(reference)


def answer_of(folder: Path, config: object) -> ModelSpec | ZeroSizerError:
    try:
        return load_config(folder, config)
    except ZeroSizerError as error:
        return error


values = st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=4))


@given(seed=st.integers(0, 999), data=st.data())
def test_no_config_ends_in_a_traceback(seed, data, tmp_path_factory):
    rng = random.Random(seed)
    family = rng.choice(sorted(SPACES))
    config = random_config(family, rng) | {"architectures": None}
    config["activation_function"] = "gelu"  # no fall-back to transformers in this test
    config["add_cross_attention"] = False
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), max_size=3)):
        if key not in ("model_type", "architectures", "add_cross_attention"):
            config[key] = data.draw(values | st.lists(values, max_size=2))
    answer = answer_of(tmp_path_factory.getbasetemp(), config)
    if isinstance(answer, ZeroSizerError):
        assert "\n" not in str(answer)
    else:
        assert answer.num_params > 0


# Code in a model folder is never run


def test_a_known_family_ignores_auto_map(tmp_path):
    (tmp_path / "modeling.py").write_text("raise SystemExit('this ran')")
    spec = load_config(tmp_path, LLAMA | {"auto_map": {"AutoModelForCausalLM": "modeling.M"}})
    assert "auto_map is not run" in spec.origin
    assert "modeling" not in sys.modules


def test_an_unknown_family_with_code_of_its_own_is_refused(tmp_path):
    (tmp_path / "modeling.py").write_text("raise SystemExit('this ran')")
    config = {"model_type": "my_own", "auto_map": {"AutoConfig": "modeling.C"}}
    with pytest.raises(UnsupportedError) as error:
        load_config(tmp_path, config)
    if "transformers is not installed" not in str(error.value):
        assert "not run" in str(error.value)
        assert error.value.exit_code == 3


def test_other_families_and_heads_are_built_by_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    small = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 11}
    spec = load_config(tmp_path, {"model_type": "gptj", "rotary_dim": 4, **small})
    with torch.device("meta"):
        config = transformers.GPTJConfig(rotary_dim=4, **small)
        model = transformers.GPTJForCausalLM(config)
    assert [(t.name, t.shape) for t in spec.parameters] == [
        (name, tuple(p.shape)) for name, p in model.named_parameters()
    ]
    assert spec.hf_config["hidden_size"] == 8
    classifier = load_config(tmp_path, LLAMA | {"architectures": ["LlamaForTokenClassification"]})
    assert classifier.parameters[-1].name == "score.bias"
    with pytest.raises(InputError):
        load_config(tmp_path, {"model_type": "gptj", **small, "n_embd": "eight"})
    with pytest.raises(InputError, match="n_embd is missing"):
        load_config(tmp_path, {"model_type": "gptj"})


def test_a_model_that_sees_has_the_widths_of_its_text_part(tmp_path):
    pytest.importorskip("transformers")
    text = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": 64,
    }
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", **text},
        "vision_config": {**vision, "image_size": 28, "patch_size": 14},
    }
    arch = load_config(tmp_path, config).arch
    assert (arch.hidden, arch.num_layers, arch.ffn, arch.vocab) == (16, 2, 32, 64)
    assert arch.gated_mlp


def test_without_transformers_or_torch_the_answer_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnsupportedError, match="transformers is not installed") as error:
        load_config(tmp_path, {"model_type": "gptj", "n_embd": 8})
    assert "zero-sizer[deepspeed]" in error.value.remedy
    with pytest.raises(UnsupportedError, match="torch, which is not installed"):
        models.load("os:getcwd")
    assert load_config(tmp_path, LLAMA).num_params > 0
