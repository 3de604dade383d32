"""Our layouts equal transformers' own classes, for whole families of configs."""

import json
import random
from pathlib import Path

import pytest
from support.model_configs import SPACES, random_config

from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.sources.config_file import config_defaults
from zero_sizer.models.sources.hf_config import load_hf_config
from zero_sizer.models.sources.torch_module import spec_from_module
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import DType


def write_config(folder: Path, config: dict) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def by_transformers(config: dict, head: str) -> ModelSpec:
    """What transformers builds, in bf16 so that tensors of another dtype show it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    hf_config = transformers.AutoConfig.for_model(config["model_type"], **fields)
    with torch.device("meta"):
        model = getattr(transformers, head)._from_config(hf_config, dtype=torch.bfloat16)
    spec = spec_from_module(model, own_dtype=DType.BF16)
    # spec_from_module itself against torch's own iterators: names, shapes and order.
    named = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    assert named == [(t.name, t.shape) for t in spec.parameters]
    assert [n for n, _ in model.named_buffers()] == [t.name for t in spec.buffers]
    return spec


def saved_by_transformers(config: dict, head: str) -> dict:
    """The config.json that ``save_pretrained`` writes for a model of this config."""
    transformers = pytest.importorskip("transformers")
    fields = {k: v for k, v in config.items() if k != "model_type"} | {"architectures": [head]}
    saved = transformers.AutoConfig.for_model(config["model_type"], **fields)
    return json.loads(saved.to_json_string())


def check_random(model_type: str, rng: random.Random, folder: Path) -> None:
    family = FAMILIES[model_type]
    config = random_config(model_type, rng)
    heads = [h for h in (family.head, family.base, *family.heads_known) if h != "T5WithLMHeadModel"]
    head = rng.choice([None, *heads])
    if head:
        config["architectures"] = [head]
    theirs = by_transformers(config, head or family.head)
    ours = load_hf_config(write_config(folder, config))
    assert ours.parameters == theirs.parameters, config
    assert ours.buffers == theirs.buffers, config
    assert ours.arch == theirs.arch, config
    saved = load_hf_config(write_config(folder, saved_by_transformers(config, head or family.head)))
    assert (saved.parameters, saved.buffers) == (ours.parameters, ours.buffers), config
    assert saved.arch == ours.arch, config
    same = ours.hf_config.keys() & theirs.hf_config.keys() - {"dtype", "architectures"}
    for key in same:
        assert ours.hf_config[key] == theirs.hf_config[key], (key, config)
    assert {"hidden_size", "num_hidden_layers", "num_attention_heads"} <= same


def test_every_family_is_tried():
    assert SPACES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_small_configs_equal_transformers(model_type, tmp_path):
    rng = random.Random(f"first {model_type}")
    for _ in range(4):
        check_random(model_type, rng, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_many_configs_equal_transformers(model_type, tmp_path):
    rng = random.Random(f"many {model_type}")
    for _ in range(30):
        check_random(model_type, rng, tmp_path)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_stored_defaults_are_those_of_the_config_class(model_type):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(model_type)
    fields = {f.name: f.default for f in config.__dataclass_fields__.values()}
    stored = config_defaults()[model_type]
    assert stored["aliases"] == config.attribute_map
    assert {key: fields[key] for key in stored["fields"]} == {
        key: default for key, (_, default) in stored["fields"].items()
    }
    assert {"vocab_size", FAMILIES[model_type].hidden_key} <= stored["fields"].keys()


def test_the_dtype_is_kept_under_its_newer_name(tmp_path):
    config = random_config("llama", random.Random(0))
    path = write_config(tmp_path, config | {"torch_dtype": "float16"})
    assert load_hf_config(path).hf_config["dtype"] == "float16"
    path = write_config(tmp_path, config | {"torch_dtype": "float16", "dtype": "bfloat16"})
    assert load_hf_config(path).hf_config["dtype"] == "bfloat16"
    assert load_hf_config(write_config(tmp_path, config)).hf_config["dtype"] is None
