"""Parameters that a job does not train, and names that no lookup may make up."""

import json

import pytest
from support.plans import make_job, make_plan
from support.profiled import profiled_names

from zero_sizer import activations, models
from zero_sizer.activations import names, select
from zero_sizer.activations.levels import Activations, ComposedPart, ComposedSection, Level
from zero_sizer.errors import InputError
from zero_sizer.findings import Direction, Severity
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.models.changes import freeze, lora, lora_config, records
from zero_sizer.models.sources.bundled import load_bundled
from zero_sizer.plan import sizes
from zero_sizer.sizing import size

BF16 = {"bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": 1}
ZERO = {**BF16, "optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 3}}
MODEL = "llama-3.2-1b"


def _frozen(*patterns):
    return freeze.with_freeze(load_bundled(MODEL), records.Freeze(patterns, "--freeze"))


def _codes(spec):
    return {f.code: f for f in size(make_job(ZERO, spec, 2, seq_len=256)).findings}


def test_a_pattern_names_parameters_or_the_modules_around_them():
    base = load_bundled(MODEL)
    layer = sum(t.numel for t in base.parameters if t.name.startswith("model.layers.0."))
    for pattern in ("model.layers.0", "model.layers.0.*", "*.layers.0.*"):
        assert base.num_trainable - _frozen(pattern).num_trainable == layer, pattern
    norms = _frozen("*norm.weight")
    assert {t.name.rpartition(".")[0][-4:] for t in norms.parameters if not t.trainable} == {"norm"}


def test_what_is_frozen_has_no_optimizer_state_and_no_gradient():
    whole, half = (make_plan(ZERO, spec, 2) for spec in (load_bundled(MODEL), _frozen("*.mlp")))
    mlp = 3 * 2048 * 8192 * 16
    assert sizes.num_trainable(whole) - sizes.num_trainable(half) == mlp
    assert sum(sizes.frozen(half)) == mlp


def test_a_tied_head_is_trained_with_its_embedding():
    torchs_layers = {**ZERO, "zero_optimization": {"stage": 2}}
    ends = [
        select.activations_of(make_plan(torchs_layers, spec, 2, seq_len=512)).parts[-1].forward.end
        for spec in (load_bundled(MODEL), _frozen("*.mlp"), _frozen("model.embed_tokens"))
    ]
    assert ends[0] == ends[1]
    assert ends[0] - ends[2] == 512 * 2048 * 2  # the head's input


def test_blocks_before_the_first_trained_keep_nothing():
    shallow = _frozen("model.embed_tokens", "model.layers.?")
    plans = [
        make_plan(ZERO, spec, 2, seq_len=512, checkpointing=False)
        for spec in (load_bundled(MODEL), shallow)
    ]
    whole, frozen = (select.activations_of(plan) for plan in plans)
    assert sum(p.count for p in frozen.parts if p.blocks and p.forward.end == 0) == 10
    assert frozen.saved < whole.saved


def test_checkpointing_opens_frozen_embeddings():
    """transformers' models make what comes out of them require a gradient then."""
    spec = freeze.with_freeze(
        models.load("mistral-7b"), records.Freeze(("*embed_tokens", "model.layers.0"), "--freeze")
    )
    for checkpointing in (False, True):
        plan = make_plan(ZERO, spec, 2, seq_len=512, checkpointing=checkpointing)
        first, block, *_ = select.activations_of(plan).parts
        words = " ".join(level.runs for level in (*first.backward.steps, *block.backward.steps))
        assert ("^model.embed_tokens" in words) is checkpointing
        assert ("^self_attn.q_proj" in words) is checkpointing


def test_a_pattern_that_names_nothing_says_what_is_near():
    found = _codes(_frozen("model.embed_token"))["freeze-matches-nothing"]
    assert found.severity is Severity.ERROR
    assert found.direction is Direction.SAVE  # less is trained than is counted
    assert "model.embed_tokens" in found.remedy


def test_patterns_with_commas_are_a_list(tmp_path):
    assert freeze.patterns("*.visual,  lm_head") == ("*.visual", "lm_head")
    assert freeze.patterns(["a,b", "model.layers.[0,1],"]) == ("a", "b", "model.layers.[0,1]")
    with pytest.raises(ValueError, match="not a pattern"):
        freeze.patterns(" , ")
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(ZERO))
    spec = read(str(config), Flags(model=MODEL, freeze=("*.mlp,model.embed_tokens",))).model
    assert {t.name.split(".")[-2] for t in spec.parameters if not t.trainable} == {
        *("gate_proj", "up_proj", "down_proj", "embed_tokens")
    }


def test_nothing_left_to_train_is_an_error():
    assert _codes(_frozen("*"))["nothing-to-train"].severity is Severity.ERROR


def test_a_job_file_and_flags_say_it(tmp_path):
    job = tmp_path / "job.yaml"
    text = f"model: {MODEL}\ndeepspeed: {json.dumps(ZERO)}\nworkload: {{freeze: WHAT}}\n"
    job.write_text(text.replace("WHAT", "['model.embed_tokens']"))
    spec = read(str(job)).model
    assert [t.name for t in spec.parameters if not t.trainable] == ["model.embed_tokens.weight"]
    assert "job.yaml:3" in spec.freeze.origin
    flagged = read(str(job), Flags(freeze=("*.layers.0.*",))).model
    assert flagged.freeze.patterns == ("*.layers.0.*",)
    for wrong in ("3", "[]", "[3]", "['" + "*a" * 9 + "']", "['" + "a" * 201 + "']"):
        job.write_text(text.replace("WHAT", wrong))
        with pytest.raises(InputError, match=r"freeze|pattern"):
            read(str(job))


def _step(runs="", completes=""):
    section = ComposedSection((Level(runs, completes, 0, 0),))
    return Activations((ComposedPart("", 0, 1, section, ComposedSection((Level("", "", 0, 0),))),))


@pytest.mark.parametrize(
    "step", [_step("model.no_such"), _step(completes="no.such.weight"), _step("^nobody.q_proj")]
)
def test_a_name_that_the_model_has_not_is_an_error(step):
    spec = load_bundled(MODEL)
    with pytest.raises(names.UnknownNameError):
        names.check(spec, step)
    known = names.Names(spec, ())
    with pytest.raises(names.UnknownNameError):
        known.owned("model.no_such")
    with pytest.raises(names.UnknownNameError):
        known.parameter("model.no_such.weight")
    assert known.owned("lm_head") == (0,)  # tied


def _steps(spec):
    found = activations.load(spec)
    for variant, kinds in found.attentions.items():
        for checkpointing in (False, True):
            yield found.evaluate(variant, kinds[0], 1, 64, checkpointing=checkpointing)


@pytest.mark.slow
@pytest.mark.parametrize("name", profiled_names())
def test_every_profile_speaks_of_its_own_model(name):
    spec = load_bundled(name)
    for step in _steps(spec):
        names.check(spec, step)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "text", ["r=8,targets=all-linear", "r=8,save=lm_head+embed_tokens", "r=8,bias=all"]
)
@pytest.mark.parametrize(
    "name", ["qwen2.5-0.5b", "gemma-2-2b", "phi-2", "gpt-neox-20b", "falcon-7b", "opt-1.3b", "gpt2"]
)
def test_under_an_adapter_every_name_is_the_models_own(name, text, checkpointing):
    if "lm_head" in text and name == "gpt-neox-20b":
        text = "r=8,save=embed_out+embed_in"
    spec = lora.with_adapter(models.load(name), lora_config.read(text, "--adapter"))
    plan = make_plan(ZERO, spec, 4, seq_len=128, checkpointing=checkpointing)
    step = select.adapted_activations(plan)
    assert step is not None  # else a name was none of the model's
    assert sorted(_completed(step)) == _trained(spec)


def _completed(step):
    """The gradients that a backward completes, in order."""
    return [
        f"{part.blocks}.{number}.{level.completes}" if part.blocks else level.completes
        for part in step.parts
        for number in range(part.first, part.first + part.count)
        for level in part.backward.steps
        if level.completes
    ]


def _trained(spec):
    return sorted(tensor.name for tensor in spec.parameters if tensor.trainable)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("t5-3b", ("*.0.*", "*.1.*", "*norm*", "shared")),
        ("bert-large", ("*.0.*", "*word_embed*", "*LayerNorm*")),
        ("gpt2", ("*.0.*", "*mlp*", "*wte*")),
        ("opt-1.3b", ("*.1.*", "*embed*", "*norm*")),
    ],
)
def test_every_trained_gradient_becomes_complete_once(name, patterns, checkpointing):
    """Tied ones too, which go by another name than the modules that run."""
    for pattern in patterns:
        spec = freeze.with_freeze(models.load(name), records.Freeze((pattern,), "--freeze"))
        assert freeze.unmatched(spec) == []
        plan = make_plan(ZERO, spec, 4, seq_len=128, checkpointing=checkpointing)
        step = select.adapted_activations(plan)
        assert step is not None
        assert sorted(_completed(step)) == _trained(spec), pattern
