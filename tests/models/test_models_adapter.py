"""Models under a LoRA adapter have peft's own tensors: names, shapes, order, who is trained."""

import json
import random

import pytest
from support.model_configs import random_config
from support.plans import make_job

from zero_sizer import models
from zero_sizer.errors import InputError, UnsupportedError, ZeroSizerError
from zero_sizer.models.changes import lora, lora_config
from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.sources.hf_config import load_hf_config
from zero_sizer.sizing import size

EXPERTS = (
    *("mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3", "glm4_moe", "gpt_oss"),
    *("llama4_text", "qwen3_next"),
)
NAMES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "query_key_value", "c_attn", "c_proj"),
    *("q", "v", "wi", "query", "dense", "fc1", "self_attention.dense", "qkv_proj", "out_proj"),
)
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "shared", "embed_in")


def random_adapter(rng, model_type):
    fields = {
        "r": rng.choice([1, 3, 8]),
        "target_modules": rng.choice(
            ["all-linear", [*rng.sample(NAMES, 9)], None, [*NAMES, *EMBEDDINGS], r".*(q|v)(_proj)?"]
        ),
        "bias": rng.choice(["none", "none", "all", "lora_only"]),
        "lora_dropout": rng.choice([0.0, 0.1]),
    }
    if rng.random() < 0.5:
        fields["modules_to_save"] = rng.sample(["lm_head", "norm", "embed_tokens", "wte"], 2)
    if rng.random() < 0.3:
        fields["layers_to_transform"] = [0]
    if rng.random() < 0.3:
        fields["rank_pattern"] = {"q_proj": 5, ".*mlp.*": 7}
    if rng.random() < 0.3:
        fields["exclude_modules"] = ["v_proj", "k_proj"]
    if model_type in EXPERTS:
        fields["target_modules"] = ["q_proj", "o_proj", "q_a_proj"]
    return fields


def by_peft(config, head, fields):
    """(name, shape, trainable) of every parameter of the model that peft makes."""
    peft = pytest.importorskip("peft")
    import torch
    import transformers

    plain = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    hf_config = transformers.AutoConfig.for_model(config["model_type"], **plain)
    with torch.device("meta"):
        base = getattr(transformers, head)._from_config(hf_config, dtype=torch.bfloat16)
        model = peft.get_peft_model(base, peft.LoraConfig(**fields))
    return [(n, tuple(p.shape), p.requires_grad) for n, p in model.named_parameters()]


def ours(config, fields, folder):
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    named = folder / "adapter_config.json"
    named.write_text(json.dumps({"peft_type": "LORA", **fields}))
    spec = lora.with_adapter(load_hf_config(path), lora_config.read(str(folder), "--adapter"))
    return [(t.name, t.shape, t.trainable) for t in spec.parameters]


def check(model_type, rng, folder):
    config = random_config(model_type, rng)
    fields = random_adapter(rng, model_type)
    try:
        theirs = by_peft(config, FAMILIES[model_type].head, dict(fields))
    except ValueError:
        with pytest.raises(ZeroSizerError):
            ours(config, fields, folder)
        return 0
    if model_type == "t5" and "embed_tokens" in fields.get("modules_to_save", []):
        with pytest.raises(UnsupportedError, match="T5"):
            ours(config, fields, folder)
        return 0
    assert ours(config, fields, folder) == theirs, (config, fields)
    return 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_random_adapters_equal_peft(model_type, tmp_path):
    rng = random.Random(f"adapter {model_type}")
    assert sum(check(model_type, rng, tmp_path) for _ in range(3)) >= 1


def _llama(text):
    return lora.with_adapter(models.load("llama-2-7b"), lora_config.read(text, "--adapter"))


def test_published_counts_of_llama_2_7b():
    # r on q and v of 32 layers: 32 * 2 * r * (4096 + 4096); then QLoRA's rank 64 everywhere
    assert _llama("r=8").num_trainable == 4_194_304
    assert _llama("r=64,targets=all-linear").num_trainable == 159_907_840
    assert _llama("r=8").num_params == 6_738_415_616 + 4_194_304


def test_an_adapter_of_numbers_and_of_a_cut_model():
    from zero_sizer.dryrun.truncate import cut_model

    numbers = models.load("params=6.7e9,layers=32,hidden=4096,heads=32,vocab=32000")
    found = lora.with_adapter(numbers, lora_config.read("r=4,targets=q+v", "--adapter"))
    assert found.num_trainable == 32 * 2 * 4 * (4096 + 4096)
    assert cut_model(_llama("r=8"), 2).num_trainable == 4_194_304 // 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere/adapter", "no adapter"),
        ("r=0,targets=q_proj", "r: 0 is not"),
        ("r=4,targets=qproj", "matches no module"),
        ("r=4,rank=5", "no field"),
        ("r=4,r=5", "one more setting"),
        ("r=4,targets=norm", "LlamaRMSNorm"),
        ("r=4,targets=mlp+q_proj", "no layer"),
        ("r=4,dropout=1.5", "from 0 to below 1"),
        ("r=4,targets=all-linear,layers=3", "need target_modules as a list"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(InputError, match=message):
        _llama(text)


def test_what_is_not_modelled_is_refused(tmp_path):
    fields = {"peft_type": "LORA", "r": 8, "trainable_token_indices": [3]}
    with pytest.raises(UnsupportedError, match="trainable_token_indices"):
        lora_config.from_fields(fields, "here")
    with pytest.raises(UnsupportedError, match="'IA3'"):
        lora_config.from_fields({"peft_type": "IA3"}, "here")
    for model, text in (("mixtral-8x7b", "r=8,targets=all-linear"), ("qwen3-30b-a3b", "r=8")):
        named = "r=8,targets=gate_proj+q_proj" if text == "r=8" else text
        with pytest.raises(UnsupportedError, match="experts"):
            lora.with_adapter(models.load(model), lora_config.read(named, "--adapter"))


def test_a_job_file_names_an_adapter(tmp_path):
    from zero_sizer.job.fields import Flags
    from zero_sizer.job.read import read

    (tmp_path / "lora").mkdir()
    saved = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(saved))
    job = tmp_path / "job.yaml"
    for written in (
        "lora",
        "{r: 8, target_modules: [v_proj, q_proj]}",
        "r=8,targets=q_proj+v_proj",
    ):
        text = written if written.startswith(("{", "lora")) else f'"{written}"'
        job.write_text(f"model: llama-2-7b\nadapter: {text}\ndeepspeed: {{}}\n")
        assert read(str(job)).model.num_trainable == 4_194_304
    assert read(str(job), Flags(adapter="r=16")).model.num_trainable == 8_388_608
    job.write_text("model: llama-2-7b\nadapter: [8]\ndeepspeed: {}\n")
    with pytest.raises(InputError, match=r"job\.yaml:2"):
        read(str(job))


BF16 = {"bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": 1}


def _codes(text, zero, **workload):
    config = {**BF16, "zero_optimization": zero}
    return {
        finding.code for finding in size(make_job(config, _llama(text), 8, **workload)).findings
    }


def test_adapters_under_zero_init_stay_in_fp32_and_bear_no_other_dtype_beside_them():
    both = {"adapters-stay-fp32", "mixed-trained-dtypes"}
    assert both <= _codes("r=8,save=lm_head", {"stage": 3}, zero_init=True)
    assert _codes("r=8", {"stage": 3}, zero_init=True) & both == {"adapters-stay-fp32"}
    assert not both & _codes("r=8,save=lm_head", {"stage": 3}, zero_init=False)
    assert not both & _codes("r=8,save=lm_head", {"stage": 2})


def test_an_estimate_from_the_base_says_so():
    codes = _codes("r=8", {"stage": 2}, seq_len=512)
    assert "activations-of-the-base" in codes
    assert "activations-in-closed-form" not in codes


def test_names_are_joined_by_plus_signs_with_or_without_spaces():
    assert lora_config.read("r=4, targets=q_proj + v_proj", "x").target_modules == (
        "q_proj",
        "v_proj",
    )
    with pytest.raises(InputError, match=r"targets=q_proj\+v_proj"):
        lora_config.read("r=4,targets=q_proj,v_proj", "--adapter")
