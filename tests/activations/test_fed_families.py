"""Families that are fed more than tokens: their answer beside a fresh trace of the very model."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zero_sizer import cli, models
from zero_sizer.activations import structure
from zero_sizer.activations.levels import depths_of
from zero_sizer.activations.profile import Profile
from zero_sizer.models import stacked
from zero_sizer.models.feeds import Said, feed_of
from zero_sizer.models.feeds.records import Images
from zero_sizer.models.sources import stacked_config
from zero_sizer.models.sources.bundled import bundled_names, read_bundled
from zero_sizer.questions import profile as tracing

CLOSE = 0.0005
# A family rounds each size that batch and sequence leave alone to the 512 bytes of torch's
# allocator, a trace at one point rounds none: some hundred copies of biases and scales.
ROUNDED = 128 * 512
WHISPER = ("whisper-tiny", "whisper-base", "whisper-small", "whisper-medium", "whisper-large-v2")
WHISPER += ("whisper-large-v3", "whisper-large-v3-turbo")
# None of these widths, depths and sizes was used to fit: bundled model, what it changes, images.
TRAINED = (
    ("whisper-tiny", {}, None),
    ("whisper-large-v3", {}, None),
    ("whisper-large-v3-turbo", {}, None),  # its decoder has 4 layers
    ("vit-base", {}, None),
    ("vit-base", {"image_size": 384}, None),
    ("vit-large", {"image_size": 384, "num_labels": 21843}, None),
    (
        "vit-large",  # ViT-H/14
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "patch_size": 14,
        },
        None,
    ),
    ("llava-1.5-7b", {}, Images(1)),
    ("llava-1.5-13b", {}, Images(3)),
    ("qwen2-vl-2b", {}, Images(1, 1024, 768)),
    ("qwen2-vl-7b", {}, Images(2, 448, 616)),
    ("qwen2-vl-7b", {}, Images(4, 280, 280)),
    ("qwen2.5-vl-3b", {}, Images(1, 1024, 1024)),
    ("qwen2.5-vl-7b", {}, Images(3, 448, 616)),
    ("qwen2.5-vl-32b", {}, Images(1, 336, 504)),
    ("clip-vit-large", {}, None),
    ("clip-vit-base", {"projection_dim": 640}, None),
    ("clip-vit-large", {"architectures": ["CLIPForImageClassification"], "num_labels": 7}, None),
    ("siglip-so400m", {}, None),
    (
        "siglip-so400m",
        {"architectures": ["SiglipForImageClassification"], "num_labels": 7},
        None,
    ),
    ("qwen3-vl-4b", {}, Images(1, 1024, 1024)),
    ("qwen3-vl-8b", {}, Images(3, 448, 640)),
    ("dinov2-large", {}, None),
    ("dinov2-base", {"image_size": 224, "mlp_ratio": 3}, None),
)
SETUPS = (
    ("bf16", "flash", True, 3),
    ("bf16 zero3", "eager", False, 2),
    ("autocast", "sdpa", False, 1),
    ("fp32", "sdpa", True, 4),
    ("bf16 zero3", "flash", False, 1),
    ("bf16 zero3", "flash", True, 4),
)
BY_IMAGES = (  # of models whose code walks through images, and windows of them
    ("bf16", "sdpa", False, 2),
    ("bf16", "eager", True, 1),
    ("autocast zero3", "sdpa", True, 2),
)


def _model(name, changes, images, folder):
    fields = read_bundled(name)["hf_config"]
    path = folder / "config.json"
    path.write_text(json.dumps({**fields, **changes}))
    spec = models.load(str(path)) if changes else models.load(name)
    feed = feed_of(spec, Said(images=images))
    assert feed is not None
    return spec, feed


def _traced(tracer, spec, setup, b, s):
    from zero_sizer.tracing.encode import Encoder
    from zero_sizer.tracing.profile import head_of

    encoder = Encoder(tracer.stacks)
    encoder.add(setup, [tracer.at(setup, b, s)])
    return Profile(encoder.document(head_of(spec.name, "", tracer.model_class)))


def _evaluated(profile, spec, setup, b, s):
    return profile.evaluate(
        setup.variant,
        setup.attention,
        b,
        s,
        checkpointing=setup.checkpointing,
        depths=depths_of(spec, profile.depths),
    )


def _kind(name, changes):
    """Members of one family share it."""
    return read_bundled(name)["hf_config"]["model_type"], str(changes.get("architectures"))


def _ways(family, feed, case):
    """Ways of running that a member is traced in: together, a family's members take all of them."""
    ways = (*SETUPS, *BY_IMAGES) if "images" in feed.measures else SETUPS
    ways = [way for way in ways if way[1] in family.attentions.get(way[0], ())]
    assert len(ways) > 1
    members = [each for each in TRAINED if _kind(*each[:2]) == _kind(*case[:2])]
    turns = min(len(members), 3, len(ways))  # no member goes without
    return ways[members.index(case) % turns :: turns]


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case[0])
def test_a_family_answers_as_a_fresh_trace(case, tmp_path):
    pytest.importorskip("transformers")
    from zero_sizer.tracing.setups import Setup, Tracer

    spec, feed = _model(*case, tmp_path)
    family = structure.load(spec, feed)
    assert family is not None
    tracer = Tracer(spec.hf_config, feed=feed)
    for variant, attention, checkpointing, samples in _ways(family, feed, case):
        setup = Setup(variant=variant, attention=attention, checkpointing=checkpointing)
        tokens = min(max(feed.fewest, 1) + 200, feed.most)
        found = _evaluated(family, spec, setup, samples, tokens)
        fresh = _traced(tracer, spec, setup, samples, tokens)
        expected = _evaluated(fresh, spec, setup, samples, tokens)
        for level in ("saved", "forward_peak", "backward_peak"):
            close = pytest.approx(getattr(expected, level), rel=CLOSE, abs=ROUNDED)
            assert getattr(found, level) == close
        if "windows" not in feed.measures or attention != "flash":  # a whole image's are counted
            # of one sample alone, torch counts some products of one row as none
            rel = 1e-7 if spec.arch.family in ("clip", "siglip") else 0
            for count in ("forward_flops", "backward_flops"):
                assert getattr(found, count) == pytest.approx(
                    getattr(expected, count), rel=rel, abs=0
                )


TOKENS = {"llava-1.5-7b": 1024, "qwen3-vl-4b": 2048, "siglip-so400m": 64}
SEEING = ("vit-base", "vit-large", *TOKENS)


@pytest.mark.parametrize("name", [*WHISPER, *SEEING])
def test_a_family_is_answered_without_torch(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "ds.json").write_text(
        json.dumps(
            {
                "train_micro_batch_size_per_gpu": 1,
                "zero_optimization": {"stage": 2},
                "bf16": {"enabled": True},
                "optimizer": {"type": "AdamW"},
            }
        )
    )
    said = ["check", str(tmp_path / "ds.json"), "--model", name, "--gpu", "h200-141gb"]
    said += [
        "--seq-len",
        str(TOKENS.get(name, 448)),
        "--attention",
        "sdpa",
        "--sequences",
        "equal",
    ]
    said += ["--images", "1", "--gpus-per-node", "8"] if name[:5] in ("llava", "qwen3") else []
    code = cli.main([*said, "--no-checkpointing", "--format", "json"])
    answer = json.loads(capsys.readouterr().out)
    assert (code, answer["verdict"]) == (0, "fits")
    codes = {finding["code"] for finding in answer["findings"]}
    assert not codes & {"inputs-not-modelled", "activations-in-closed-form"}


@pytest.mark.parametrize(
    ("name", "precision", "attention", "images"),
    [
        ("qwen2.5-vl-7b", "bf16", None, "3,size=448x616"),  # sdpa is transformers' own choice
        ("qwen2.5-vl-3b", "bf16", "sdpa", "1,size=1036x1036"),
        ("qwen2-vl-7b", "fp32", "sdpa", "2,size=448x448"),
        ("qwen2-vl-2b", "autocast", "sdpa", "1,size=672x448"),
        ("llava-1.5-7b", "autocast", "sdpa", "2"),
    ],
)
def test_seeing_models_are_answered_without_torch_however_they_run(
    name, precision, attention, images, tmp_path, capsys, monkeypatch
):
    code, answer = _seen(name, precision, attention, images, tmp_path, capsys, monkeypatch)
    assert (code, answer["verdict"]) == (0, "fits")
    codes = {finding["code"] for finding in answer["findings"]}
    assert not codes & {"inputs-not-modelled", "activations-in-closed-form"}


def test_a_way_of_running_that_was_not_traced_is_not_told(tmp_path, capsys, monkeypatch):
    """Never another precision's answer in its place."""
    asked = ("qwen2.5-vl-3b", "autocast", "sdpa", "1,size=448x448")
    code, answer = _seen(*asked, tmp_path, capsys, monkeypatch)
    assert (code, answer["verdict"]) == (3, "uncertain")
    assert "inputs-not-modelled" in {reason["code"] for reason in answer["reasons"]}


def _seen(name, precision, attention, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said_so = {"bf16": {"bf16": {"enabled": True}}, "fp32": {}}
    said_so["autocast"] = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}
    config |= {"optimizer": {"type": "AdamW"}, **said_so[precision]}
    (tmp_path / "ds.json").write_text(json.dumps(config))
    said = ["check", str(tmp_path / "ds.json"), "--model", name, "--gpu", "h200-141gb"]
    said += ["--seq-len", "3072", "--images", images, "--gpus-per-node", "8"]
    said += ["--sequences", "equal", "--no-checkpointing", "--format", "json"]
    code = cli.main([*said, *(["--attention", attention] if attention else [])])
    return code, json.loads(capsys.readouterr().out)


def test_encoder_and_decoder_of_a_whisper_keep_what_arithmetic_says():
    """A block more of the decoder keeps more where more tokens are; of the encoder it does not."""
    spec = models.load("whisper-small")
    feed = feed_of(spec)
    family = structure.load(spec, feed)
    kept = {}
    for stack in family.depths:
        for tokens in (128, 256):
            depths = {**depths_of(spec, family.depths)}
            levels = []
            for _ in range(2):
                step = family.evaluate("bf16", "flash", 2, tokens, depths=depths)
                levels.append(step.saved)
                depths[stack] += 1
            kept[stack, tokens] = levels[1] - levels[0]
    encoder, decoder = family.depths
    assert kept[encoder, 128] == kept[encoder, 256]
    assert kept[decoder, 256] > kept[decoder, 128]
    # each of the decoder's blocks keeps keys and values of 1,500 frames: 2 x 2 x 1500 x 768
    assert kept[decoder, 128] - (kept[decoder, 256] - kept[decoder, 128]) == pytest.approx(
        2 * 2 * 1500 * 768 * 2, rel=0.01
    )


def test_a_block_that_sees_windows_compares_fewer_patches_than_one_that_sees_the_image():
    """With sdpa, two products of queries and keys or scores and values, of a multiply-add each."""
    spec = models.load("qwen2.5-vl-7b")
    feed = feed_of(spec, Said(images=Images(3, 448, 616)))
    assert feed.measures["window_squares"] == 4 * (5 * 64**2 + 32**2)  # 11 tokens, by four
    flops = []
    for whole in ([7, 15, 23, 31], [7, 15, 23]):
        tower = {**spec.hf_config["vision_config"], "fullatt_block_indexes": whole}
        changed = replace(spec, hf_config={**spec.hf_config, "vision_config": tower})
        flops.append(structure.load(changed, feed).evaluate("bf16", "sdpa", 2, 2048).forward_flops)
    fewer = (32 * 44) ** 2 - feed.measures["window_squares"]
    assert flops[0] - flops[1] == 2 * 3 * 4 * 1280 * fewer


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("whisper-small", {"activation_function": "relu"}),
        ("whisper-small", {"dropout": 0.1}),
        ("whisper-small", {"apply_spec_augment": True}),
        ("whisper-small", {"encoder_layerdrop": 0.1}),
        ("vit-base", {"hidden_act": "relu"}),
        ("vit-base", {"num_labels": 1}),  # a regression's loss
        ("vit-base", {"num_attention_heads": 64}),  # heads of 12, which kernels pad
    ],
)
def test_another_structure_is_no_familys(name, change):
    spec = models.load(name)
    changed = replace(spec, hf_config={**spec.hf_config, **change})
    assert structure.load(spec, feed_of(spec)) is not None
    assert structure.load(changed, feed_of(changed)) is None


@pytest.mark.parametrize(
    ("name", "config", "change"),
    [
        ("clip-vit-base", "vision_config", {"hidden_act": "relu"}),
        ("siglip-so400m", "text_config", {"projection_size": 768}),  # not the tower's width
        ("siglip-so400m", "vision_config", {"vision_use_head": False}),
        ("qwen3-vl-8b", "vision_config", {"deepstack_visual_indexes": [8, 24]}),
        ("qwen3-vl-8b", "vision_config", {"deepstack_visual_indexes": [8, 9, 24]}),
        ("qwen3-vl-8b", "vision_config", {"deepstack_visual_indexes": [8, 16, 26]}),  # the last
        ("qwen3-vl-8b", "text_config", {"attention_bias": True}),
    ],
)
def test_another_tower_is_no_familys(name, config, change):
    from dataclasses import replace

    spec = models.load(name)
    nested = {**spec.hf_config[config], **change}
    changed = replace(spec, hf_config={**spec.hf_config, config: nested})
    assert structure.load(spec, feed_of(spec)) is not None
    assert structure.load(changed, feed_of(changed)) is None


def test_older_files_of_clip_say_their_towers_twice(tmp_path):
    """What ``text_config_dict`` leaves out is its class's default."""
    whole = read_bundled("clip-vit-large")["hf_config"]
    fields = {**whole, "text_config": {"hidden_size": 640, "vocab_size": 1000}}
    fields["text_config_dict"] = whole["text_config"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(fields))
    found, known = models.load(str(path)), models.load("clip-vit-large")
    assert found.parameters == known.parameters
    assert structure.load(found, feed_of(found)) is not None


def test_logits_of_samples_against_samples_grow_by_the_square():
    """CLIP's table of similarities; at a few samples it is too small to be seen."""
    spec = models.load("clip-vit-base")
    family = structure.load(spec, feed_of(spec))
    kept = [family.evaluate("bf16", "flash", b, 77).saved for b in (1000, 2000, 3000, 4000)]
    second = [kept[i] - 2 * kept[i + 1] + kept[i + 2] for i in (0, 1)]
    # what is scaled, and the logarithms of both losses, in 16 bits
    assert second == [3 * 2 * 2 * 1000**2] * 2


def test_images_of_another_size_than_the_config_says_are_no_familys():
    spec = models.load("vit-base")
    assert structure.load(spec, feed_of(spec, Said(images=Images(1, 384, 384)))) is None


@pytest.mark.parametrize(
    "name", [name for name in bundled_names() if stacked.row_of(models.load(name).hf_config)]
)
def test_a_config_is_laid_out_as_transformers_own_class(name):
    """The bundled file was written from that class."""
    known = models.load(name)
    found = stacked_config.laid_out(known.hf_config, name=name, where="config.json")
    assert found is not None
    assert found.parameters == known.parameters
    assert found.buffers == known.buffers
    assert (found.shared, found.arch) == (known.shared, known.arch)


def test_a_config_of_any_size_is_answered_without_torch(tmp_path, capsys, monkeypatch):
    """A distilled Whisper of 32 and 2 layers, and one of widths that nobody trained."""
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    fields = read_bundled("whisper-large-v3")["hf_config"]
    peaks = []
    for change in ({"decoder_layers": 2}, {"d_model": 1600, "encoder_attention_heads": 25}):
        change = {"decoder_attention_heads": 25, **change} if "d_model" in change else change
        (tmp_path / "config.json").write_text(json.dumps({**fields, **change}))
        (tmp_path / "ds.json").write_text(
            '{"train_micro_batch_size_per_gpu": 4, "bf16": {"enabled": true}}'
        )
        said = ["check", str(tmp_path / "ds.json"), "--model", str(tmp_path / "config.json")]
        said += ["--gpu", "h200-141gb", "--seq-len", "256", "--attention", "flash"]
        assert cli.main([*said, "--sequences", "equal", "--format", "json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        peaks.append(answer["devices"]["gpu"]["peak_bytes"])
    assert peaks[0] < peaks[1]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["generate_nested_defaults", "generate_stacked_layouts"])
def test_generated_files_are_current(script, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    module = importlib.import_module(script)
    assert module.PATH.read_text(encoding="utf-8") == module.render()


@pytest.mark.slow
def test_what_an_operator_returns_by_values_is_not_remembered_by_shapes():
    """Windows of one image are not those of another of as many patches."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from zero_sizer.tracing import session
    from zero_sizer.tracing.recorder import Recorder

    with session.fake_gpu(Recorder(), keeps_values=4096):
        counts = [
            len(torch.unique_consecutive(torch.tensor(values)))
            for values in ([0, 1, 1, 2], [0, 1, 2, 3], [0, 0, 0, 0])
        ]
    assert counts == [3, 4, 1]
