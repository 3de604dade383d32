"""Profiles of shortened models against traces of whole ones, at batches and lengths not fitted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.profile_checks import assert_seen, spec_of, traced_cases

from zero_sizer.activations import Profile, structure
from zero_sizer.models.sources.bundled import read_bundled

ROOT = Path(__file__).parents[2]
BF16 = [["bf16", attention, ckpt] for attention in ("sdpa", "eager") for ckpt in (False, True)]
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}
QWEN_MOE = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 64,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 7,
    "mlp_only_layers": [0, 1],
}
GEMMA2 = {
    **LLAMA,
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "head_dim": 64,
    "num_hidden_layers": 8,
    "sliding_window": 768,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 256,
    "d_kv": 64,
    "d_ff": 512,
    "num_heads": 4,
    "num_layers": 5,
    "num_decoder_layers": 6,
    "vocab_size": 1024,
}


def short(name, **changes):
    return {**read_bundled(name)["hf_config"], **changes}


CASES = {
    "llama": (LLAMA, [*BF16[:3], ["fp32", "sdpa", False], ["autocast", "sdpa", True]]),
    "dense, then experts": (
        QWEN_MOE,
        [BF16[0], ["fp32", "eager", True], ["autocast", "sdpa", True]],
    ),
    "windows in every other layer": (
        GEMMA2,
        [["bf16", "flash", False], ["bf16", "eager", True]],
    ),
    "encoder and decoder": (T5, [BF16[1], BF16[2], ["autocast", "sdpa", False]]),
    "gated encoder and decoder": (
        {**T5, "feed_forward_proj": "gated-gelu", "d_model": 192, "num_heads": 3},
        [BF16[1]],
    ),
    "gpt2": (short("gpt2", n_layer=5, num_hidden_layers=5), BF16[1:3]),
    "bert": (short("bert-base", num_hidden_layers=5), BF16[1:3]),
    "bloom": (short("bloom-560m", n_layer=5, num_hidden_layers=5), [["bf16", "eager", True]]),
    "falcon": (short("falcon-7b", num_hidden_layers=5), BF16[1:3]),
    "granite": (short("granite-3.1-2b", num_hidden_layers=5, vocab_size=2048), BF16[:2]),
    "granite 4": (
        short("granite-4.0-350m", num_hidden_layers=5, layer_types=["attention"] * 5),
        [BF16[0], ["autocast", "sdpa", True]],
    ),
    "olmo 2": (
        {**LLAMA, "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]},
        [*BF16[:2], ["fp32", "eager", False]],
    ),
    "mistral": (short("mistral-7b", num_hidden_layers=5, sliding_window=640), BF16[:2]),
}
POINTS = [[1, 512], [5, 384], [3, 960]]
NO_FAMILY = ("dense, then experts",)  # blocks that differ; no family yet


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The user's own model, and where the user's cache is."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine").mkdir()
    config = folder / "mine" / "config.json"
    config.write_text(json.dumps({**LLAMA, "hidden_act": "gelu"}), encoding="utf-8")
    return config, folder / "cache"


@pytest.fixture(scope="module")
def traced(tmp_path_factory, own):
    """Name of a case -> its profile and the whole model's levels.

    The process that traces them is first the command that traces the user's own model.
    """
    points = dict.fromkeys(CASES, POINTS[::2])
    points |= dict.fromkeys(("gpt2", "bert"), POINTS[:2])  # no longer positions
    cases = {
        name: {"fields": fields, "points": points[name], "setups": setups}
        for name, (fields, setups) in CASES.items()
    }
    return traced_cases(cases, tmp_path_factory.mktemp("traces"), own)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_profile_gives_what_the_whole_model_shows(name, traced):
    assert_seen(Profile(traced[name]["profile"]), traced[name]["seen"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_family_gives_what_a_model_of_other_widths_shows(name, traced, tmp_path):
    profile = structure.load(spec_of(CASES[name][0], tmp_path))
    if name in NO_FAMILY:
        assert profile is None
    else:
        assert profile is not None
        assert_seen(profile, traced[name]["seen"])


@pytest.mark.slow
def test_the_users_own_model_is_traced_into_the_cache(traced, own):
    config, cache = own
    assert list(cache.rglob("*.json"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-m", "zero_sizer", "models", "--profile", str(config)]
    again = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "there already" in again.stdout
