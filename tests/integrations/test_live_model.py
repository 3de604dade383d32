"""A module in memory is the model that its files describe, whatever lies around it."""

import json

import pytest
import torch
from support.simulated_jobs import TINY_LLAMA

from zero_sizer import models
from zero_sizer.integrations.live_model import spec_of
from zero_sizer.models.changes import freeze, lora, lora_config, records

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.slow
FIELDS = {**TINY_LLAMA, "tie_word_embeddings": True}
ADAPTER = {"r": 4, "target_modules": ["q_proj", "down_proj"], "bias": "lora_only"}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(FIELDS))
    return models.load(str(path))


def module():
    with torch.device("meta"):
        config = transformers.LlamaConfig(**FIELDS)
        return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


def test_it_is_the_model_of_its_config(described):
    found = spec_of(module())
    assert found.parameters == described.parameters
    assert found.buffers == described.buffers
    assert found.arch == described.arch


def test_wrappers_do_not_matter(described):
    class Wrapper(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.module = inner

    assert spec_of(Wrapper(Wrapper(module()))).parameters == described.parameters


def test_partitioned_tensors_have_their_whole_shape(described):
    live = module()
    for parameter in live.parameters():
        parameter.ds_shape, parameter.ds_numel = parameter.shape, parameter.numel()
        parameter.data = torch.empty(0, dtype=parameter.dtype, device="meta")
    assert spec_of(live).parameters == described.parameters


def test_frozen_parts_are_not_trained(described):
    live = module()
    live.model.embed_tokens.requires_grad_(False)
    found = spec_of(live)
    assert found.num_trainable == sum(p.numel() for p in live.parameters() if p.requires_grad)
    expected = freeze.with_freeze(described, records.Freeze(("model.embed_tokens.weight",)))
    assert found.parameters == expected.parameters


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks by transformers' old names
def test_an_adapted_one_is_what_the_adapter_makes_of_it(described):
    live = peft.get_peft_model(module(), peft.LoraConfig(**ADAPTER), low_cpu_mem_usage=True)
    found = spec_of(live)
    expected = lora.with_adapter(described, lora_config.from_fields(ADAPTER, "here"))
    assert [(t.name, t.shape, t.trainable) for t in found.parameters] == [
        (t.name, t.shape, t.trainable) for t in expected.parameters
    ]
    assert found.adapter.r == 4
    assert found.num_trainable == sum(p.numel() for p in live.parameters() if p.requires_grad)


def test_any_other_module_is_its_tensors():
    live = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2, bias=False))
    found = spec_of(live)
    assert [(t.name, t.shape) for t in found.parameters] == [
        (name, tuple(p.shape)) for name, p in live.named_parameters()
    ]
