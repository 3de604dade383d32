"""Bundled activation profiles, evaluated: against arithmetic done by hand from the widths."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.profiled import profiled_names

from zero_sizer import activations, models
from zero_sizer.activations import store, structure
from zero_sizer.cli import main
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.sources.bundled import read_bundled

LLAMA_LIKE = ("llama-2-7b", "llama-3-8b", "llama-3-70b", "qwen2.5-7b", "smollm2-360m")
# Measured on a GPU, copies of the hidden states that one layer's forward leaves behind:
# github.com/stas00/ml-engineering, training/performance/README.md (bf16, 32384 tokens).
PUBLISHED_COPIES = {
    "llama-3.1-8b": 28.0,
    "mistral-7b-v0.3": 28.0,
    "qwen3-8b": 29.8,  # there as DeepSeek-R1-0528-Qwen3-8B, which has the same widths
    "gemma-1.1-2b": 48.0,
}
TRUNCATED_COPIES = {"smollm2-360m": 24, "qwen3-4b": 38}  # 24.7 and 38.2, given as 24.0 and 38.0


def bundled(name):
    profile = activations.load(models.load(name))
    assert profile is not None
    return profile


def setups(profile):
    return [
        (variant, attention, checkpointing)
        for variant, kinds in profile.attentions.items()
        for attention in kinds
        for checkpointing in (False, True)
    ]


def evaluate(profile, setup, b, s):
    variant, attention, checkpointing = setup
    return profile.evaluate(variant, attention, b, s, checkpointing=checkpointing)


@pytest.mark.slow
@pytest.mark.parametrize("name", profiled_names())
def test_every_model_has_a_profile_of_its_depth(name):
    profile = bundled(name)
    arch = models.load(name).arch
    assert list(profile.depths.values()) == [
        depth for depth in (arch.num_layers, arch.decoder_layers) if depth
    ]
    for setup in setups(profile):
        step = evaluate(profile, setup, 2, 512)
        blocks = sum(part.count for part in step.parts if part.blocks)
        assert blocks == sum(profile.depths.values())


def in_cycles(name, setup, s):
    """T5's position biases: checkpointing holds each stack's until Python collects cycles."""
    variant, _, checkpointing = setup
    arch = models.load(name).arch
    if arch.family != "t5" or not checkpointing:
        return 0
    return 2 * arch.heads * s * s * (4 if variant == "fp32" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", profiled_names())
def test_what_forward_saves_backward_frees(name):
    profile = bundled(name)
    for setup in setups(profile):
        for b, s in ((1, 512), (4, 1024), (1, 8192)):
            step = evaluate(profile, setup, b, s)
            left = step.saved + sum(part.count * part.backward.end for part in step.parts)
            # the loss, in a block of the allocator; ids where one sample needs no copy of them
            assert -16 * s <= left - in_cycles(name, setup, s) <= 512 + 16 * s, (setup, b, s)


@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_a_llama_block_saves_what_its_operators_need(name):
    step = bundled(name).evaluate("bf16", "flash", 3, 2048)
    middle = next(part for part in step.parts if part.count > 1)
    saved = 3 * 2048 * saved_by_block(models.load(name).arch)
    assert middle.forward.end - 2 * 512 == saved  # 2 RNG states


def saved_by_block(arch):
    """Bytes a token of a Llama's block at 16 bits with flash attention."""
    query, key_value = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    norm = 4 * arch.hidden + 2 * arch.hidden + 2 * arch.hidden + 4  # fp32 input, 16-bit, out, rstd
    attention = 2 * (2 * query + 2 * key_value) + 4 * arch.heads  # q, out, k, v; log-sum-exp
    return 2 * norm + attention + 2 * 4 * arch.ffn  # gate, its activation, up, their product


@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_checkpointing_keeps_one_hidden_state_a_block(name):
    arch = models.load(name).arch
    step = bundled(name).evaluate("bf16", "flash", 2, 1024, checkpointing=True)
    kept = {part.forward.end for part in step.parts if part.blocks}
    assert kept == {2 * 1024 * 2 * arch.hidden}


@pytest.mark.slow
@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_loss_holds_logits_their_fp32_copy_and_log_probabilities(name):
    arch = models.load(name).arch
    tokens = 4 * 4096
    head = bundled(name).evaluate("bf16", "flash", 4, 4096).parts[-1]
    logits = tokens * arch.vocab
    # the norm saves three; the embedding's and the last block's output are let go before the loss
    norm = (4 + 2 + 2 - 2 - 2) * arch.hidden
    rest = head.forward.peak - (2 + 4 + 4) * logits
    assert 0 <= rest - tokens * norm < tokens * 40  # its rstd, and some ids
    # backward starts with the fp32 log-probabilities, their gradient and the logits' gradient
    start = head.forward.end - tokens * norm
    assert start + head.backward.peak == pytest.approx((4 + 4 + 4) * logits, rel=1e-3)


@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_flops_are_two_a_weight_and_token_and_the_scores(name):
    spec = models.load(name)
    matrices = sum(
        tensor.numel
        for tensor in spec.parameters
        if len(tensor.shape) == 2 and "embed_tokens" not in tensor.name
    )
    if spec.arch.tied_embeddings:
        matrices += spec.arch.vocab * spec.arch.hidden
    b, s = 2, 4096
    scores = 2 * b * s * s * spec.arch.heads * spec.arch.head_dim * spec.arch.num_layers
    step = bundled(name).evaluate("bf16", "flash", b, s)
    assert step.forward_flops == 2 * matrices * b * s + 2 * scores
    assert step.backward_flops == 4 * matrices * b * s + 5 * scores  # scores are computed again
    again = bundled(name).evaluate("bf16", "flash", b, s, checkpointing=True)
    assert again.forward_flops == step.forward_flops
    assert again.backward_flops > step.backward_flops


def copies_of_older_transformers(name):
    """Hidden states that a layer leaves, with what transformers 4.53 kept and 5.23 does not.

    It repeated keys and values for every query head, and copied the attention's output, which came
    out head by head, before the projection; the measurement counts the layer's output too.
    """
    arch = models.load(name).arch
    query, key_value = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    step = bundled(name).evaluate("bf16", "flash", 1, 32384)
    middle = next(part for part in step.parts if part.count > 1)
    older = 2 * 32384 * (2 * (query - key_value) + query + arch.hidden)
    return (middle.forward.end + older) / (2 * 32384 * arch.hidden)


@pytest.mark.parametrize(("name", "copies"), PUBLISHED_COPIES.items())
def test_published_copies_of_hidden_states(name, copies):
    assert copies_of_older_transformers(name) == pytest.approx(copies, abs=0.06)


@pytest.mark.parametrize(("name", "copies"), TRUNCATED_COPIES.items())
def test_published_copies_without_their_fraction(name, copies):
    assert int(copies_of_older_transformers(name)) == copies


def test_a_window_needs_a_mask_without_flash_attention():
    profile = bundled("mistral-7b")

    def saved(attention, s):
        return profile.evaluate("bf16", attention, 1, s).saved

    assert saved("sdpa", 4095) == saved("flash", 4095)
    assert saved("sdpa", 4096) > saved("flash", 4096) + 4096 * 4096


def test_tied_weights_gradient_waits_through_the_backward():
    arch = models.load("gemma-2b").arch
    step = bundled("gemma-2b").evaluate("bf16", "flash", 1, 128)
    logits = 128 * arch.vocab * 4 * 3
    assert step.backward_peak > arch.vocab * arch.hidden * 2 > logits


@pytest.mark.slow
@given(
    name=st.sampled_from(["llama-3-8b", "gpt2-large", "mixtral-8x7b", "bert-base", "t5-3b"]),
    b=st.integers(1, 64),
    s=st.integers(16, 1024),
    data=st.data(),
)
def test_more_tokens_need_more(name, b, s, data):
    profile = bundled(name)
    setup = data.draw(st.sampled_from(setups(profile)))
    step = evaluate(profile, setup, b, s)
    assert step.peak >= step.saved > 0
    for more in (evaluate(profile, setup, b + 1, s), evaluate(profile, setup, b, s + 1)):
        assert more.saved >= step.saved
        assert more.peak >= step.peak


@pytest.mark.slow
@given(depth=st.integers(3, 200))
def test_depth_adds_middle_blocks(depth):
    profile = bundled("llama-3-8b")
    stack = next(iter(profile.depths))
    one, two = (
        profile.evaluate("bf16", "sdpa", 2, 512, depths={stack: d}) for d in (depth, depth + 1)
    )
    middle = next(part for part in two.parts if part.count > 1)
    assert two.saved - one.saved == middle.forward.end
    assert two.forward_flops - one.forward_flops == middle.forward.flops


def test_autocast_frees_all_copies_of_weights_when_it_ends():
    profile = bundled("llama-3-8b")
    stack = next(iter(profile.depths))
    few, many = (
        profile.evaluate("autocast", "sdpa", 2, 512, checkpointing=True, depths={stack: d})
        for d in (8, 32)
    )
    kept = 24 * 2 * 512 * 4096 * 4  # the residual stream stays in fp32
    assert many.saved - few.saved == kept


def test_what_was_not_traced_is_refused():
    profile = bundled("gemma-2-2b")
    assert profile.attention_for("bf16", "sdpa") == "eager"  # soft-capped scores
    with pytest.raises(UnsupportedError, match="sdpa"):
        profile.evaluate("bf16", "sdpa", 1, 128)
    with pytest.raises(UnsupportedError, match="int8"):
        profile.attention_for("int8", "flash")
    with pytest.raises(InputError, match="0 samples"):
        profile.evaluate("bf16", "eager", 0, 128)
    with pytest.raises(UnsupportedError, match="pattern"):
        profile.evaluate("bf16", "eager", 1, 128, depths={"model.layers": 1})


def config_file(folder: Path, name: str, **changes: object) -> Path:
    fields = {**read_bundled(name)["hf_config"], **changes}
    path = folder / "config.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-3-8b", "t5-3b", "gpt2", "bert-base", "mixtral-8x7b"])
def test_a_config_of_a_bundled_model_has_its_profile(name, tmp_path):
    found = activations.load(models.load(str(config_file(tmp_path, name))))
    assert found is not None
    for setup in setups(bundled(name)):
        assert peaks(found, setup) == peaks(bundled(name), setup)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gemma-2-9b", {"hidden_act": "gelu_pytorch_tanh"}),
        ("gemma-7b", {"hidden_activation": None}),
        ("gpt-neox-20b", {"rotary_pct": 0.25}),
        ("phi-2", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        ("llama-3-8b", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ("qwen2.5-7b", {"sliding_window": 131072, "layer_types": ["full_attention"] * 28}),
        ("llama-3-8b", {"architectures": None}),
        ("olmo-2-1b", {"architectures": None, "hidden_act": "silu", "attention_bias": False}),
        ("granite-4.1-3b", {"attention_bias": False, "mlp_bias": False, "logits_scaling": 10.0}),
        ("granite-4.0-350m", {"mamba_d_state": 256, "mamba_n_heads": 16}),
        ("olmo-3-7b", {"layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8}),
        ("starcoder2-3b", {"hidden_act": "gelu_pytorch_tanh", "residual_dropout": 0.0}),
        ("seed-oss-36b", {"attention_dropout": 0.1, "attention_bias": True}),
        ("llama-3-8b", {"sliding_window": 4096}),  # Llama's class reads none
    ],
)
def test_what_a_config_says_beside_changes_no_structure(name, said, tmp_path):
    spec = models.load(str(config_file(tmp_path, name, **said)))
    assert structure.structure_of(spec) == structure.structure_of(models.load(name))


def peaks(profile, setup):
    step = evaluate(profile, setup, 2, 512)
    return step.saved, step.forward_peak, step.backward_peak


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"},
        {"attention_bias": True},
        {"head_dim": 100},
        {"attention_dropout": 0.1},
    ],
)
def test_another_structure_has_another_profile_or_none(change, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = models.load(str(config_file(tmp_path, "llama-3-8b", **change)))
    assert activations.load(spec) is None
    store._from_cache.cache_clear()
    path = activations.cache_file(store.key_of(spec))
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 1, "name"', encoding="utf-8")  # the disk was full
    assert activations.load(spec) is None
    store._from_cache.cache_clear()
    store.write_cached(path, json.loads((store._DATA / "activations.gpt-j-6b.json").read_text()))
    found = activations.load(spec)
    store._from_cache.cache_clear()
    assert found is not None
    assert found.name == "gpt-j-6b"


@st.composite
def llamas(draw):
    heads = draw(st.sampled_from([4, 6, 12, 32, 64]))
    changes = {
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from([n for n in (2, 3, 8, 32) if heads % n == 0])),
        "hidden_size": heads * draw(st.integers(1, 300)),
        "head_dim": 8 * draw(st.integers(1, 32)),
        "intermediate_size": draw(st.integers(1, 60_000)),
        "vocab_size": draw(st.integers(3, 300_000)),
        "num_hidden_layers": draw(st.integers(3, 130)),
    }
    with tempfile.TemporaryDirectory() as folder:
        return models.load(str(config_file(Path(folder), "llama-3-8b", **changes)))


@pytest.mark.slow
@given(spec=llamas(), b=st.integers(2, 64), s=st.integers(64, 40_000))
def test_a_llama_of_any_width_saves_what_its_operators_need(spec, b, s):
    step = activations.load(spec).evaluate("bf16", "flash", b, s)
    middle = next(part for part in step.parts if part.count > 1)
    assert middle.forward.end - 2 * 512 == b * s * saved_by_block(spec.arch)  # 2 RNG states
    assert sum(part.count for part in step.parts if part.blocks) == spec.arch.num_layers


def test_a_cut_of_a_bundled_model_has_its_profile():
    spec = models.load("llama-3-8b")
    kept = tuple(t for t in spec.parameters if ".layers.9." not in t.name)
    found = activations.load(replace(spec, name="llama-3-8b, cut", parameters=kept))
    assert found is not None
    for setup in setups(found):
        assert peaks(found, setup) == peaks(bundled("llama-3-8b"), setup)


def test_a_profile_that_is_there_is_not_traced_again(capsys):
    assert main(["models", "--profile", "llama-3-8b"]) == 0
    assert "there already" in capsys.readouterr().out


def test_only_a_config_can_be_traced(capsys):
    assert main(["models", "--profile", "params=7e9,layers=32,hidden=4096,heads=32"]) == 3
    assert "config.json" in capsys.readouterr().err
