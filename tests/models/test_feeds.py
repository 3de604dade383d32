"""Inputs derived from configs: what published models are fed, and what users say of a sample."""

import json
from math import isqrt

import pytest

from zero_sizer import models
from zero_sizer.findings import Direction
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.job.values import images, pixels
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.feeds import Feed, Images, Said, feed_of, tiles
from zero_sizer.models.feeds.audio import shortest
from zero_sizer.sizing import size


def tensors(name, **said):
    """Shape of each input of one sample of 2048 tokens."""
    feed = feed_of(models.load(name), Said(**said))
    return {
        given.name: (given.num_rows(1), *(2048 if n == "s" else n for n in given.shape))
        for given in feed.inputs
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # preprocessor_config.json of each on the hub
        ("whisper-large-v3", {"input_features": (1, 128, 3000), "labels": (1, 2048)}),
        ("whisper-small", {"input_features": (1, 80, 3000), "labels": (1, 2048)}),
        ("vit-base", {"pixel_values": (1, 3, 224, 224), "labels": (1,)}),
        ("clip-vit-large", {"input_ids": (1, 2048), "pixel_values": (1, 3, 224, 224)}),
        # train_text_to_image_sdxl.py: latents of 1024 pixels, CLIP's 77 tokens of both encoders
        (
            "sdxl-unet",
            {
                "sample": (1, 4, 128, 128),
                "timestep": (1,),
                "encoder_hidden_states": (1, 77, 2048),
                "added_cond_kwargs.text_embeds": (1, 1280),
                "added_cond_kwargs.time_ids": (1, 6),
            },
        ),
        # train_dreambooth_flux.py: 1024 pixels packed by squares of two latents, 512 of T5's tokens
        (
            "flux.1-dev",
            {
                "hidden_states": (1, 4096, 64),
                "timestep": (1,),
                "encoder_hidden_states": (1, 512, 4096),
                "pooled_projections": (1, 768),
                "img_ids": (4096, 3),
                "txt_ids": (512, 3),
                "guidance": (1,),
            },
        ),
    ],
)
def test_inputs_are_those_of_the_public_processors_and_scripts(name, expected):
    assert tensors(name) == expected


@pytest.mark.parametrize(
    ("name", "said", "tokens"),
    [
        ("llava-1.5-7b", None, 576),  # image_seq_length of its config.json
        ("llava-1.5-7b", Images(3), 3 * 576),
        ("gemma-3-4b", None, 256),  # mm_tokens_per_image
        # 448 x 448: 256 tokens, as the model cards of Qwen2-VL count them (28 x 28 pixels each)
        ("qwen2.5-vl-7b", Images(1, 448, 448), 256),
        ("qwen2-vl-7b", Images(2, 280, 560), 2 * 200),
        ("qwen3-vl-8b", Images(1, 512, 512), 256),  # 32 x 32 pixels each
        ("internvl3-8b", None, 256),  # image_seq_length of its config.json: one tile
        ("internvl3-8b", Images(1, 896, 896), 5 * 256),  # four tiles and the whole
        ("internvl3-8b", Images(2, 448, 1344), 2 * 4 * 256),
        ("llama-4-scout", None, 144),  # a tile of 24 x 24 patches, pixel-shuffled by 2 x 2
        ("llama-4-scout", Images(1, 672, 1008), 7 * 144),  # 2 x 3 tiles and the whole
        ("mistral-small-3.1-24b", Images(1, 448, 448), 256),  # 28 x 28 pixels each
    ],
)
def test_images_take_the_published_number_of_tokens(name, said, tokens):
    feed = feed_of(models.load(name), Said(images=said))
    ids = next(given for given in feed.inputs if given.name == "input_ids")
    assert sum(count for value, count in ids.begins if value) == tokens
    assert feed.fewest > tokens
    assert f"{tokens:,} of the tokens" in feed.about


def _sides(model, **said):
    """Height and width of one sample's image in pixels."""
    brief = feed_of(models.load(model), Said(**said)).brief
    return tuple(int(side) for side in brief.partition(" of ")[2].split(" x "))


@pytest.mark.parametrize(
    ("model", "sides"), [("qwen2-vl-2b", (2912, 4368)), ("qwen3-vl-8b", (3328, 4992))]
)
def test_a_large_photo_is_scaled_to_what_the_processor_takes(model, sides):
    """As ``smart_resize`` scales 24 megapixels by the bounds of preprocessor_config.json."""
    assert _sides(model, images=Images(1, 4000, 6000)) == sides
    assert _sides(model, images=Images(1, 8000, 12000)) == sides


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(448, 448), (500, 333), (1024, 768), (1080, 1920)])
@pytest.mark.parametrize(("model", "step"), [("qwen2.5-vl-7b", 28), ("qwen3-vl-8b", 32)])
def test_qwen_rounds_images_as_its_processor_does(model, step, height, width):
    """Scaled down to a bound where there is one."""
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    for most in (16384 * step**2, 768 * 768, 300_000, 50_176):
        sides = module.smart_resize(height, width, step, 4 * step**2, most)
        images = Images(1, height, width)
        assert _sides(model, images=images, max_pixels=most) == sides, most
    large = (4 * height, 5 * width)
    own = (3136, 12_845_056) if step == 28 else (65_536, 16_777_216)  # preprocessor_config.json
    assert _sides(model, images=Images(1, *large)) == module.smart_resize(*large, step, *own)
    for least in (65_536, 1_003_520):  # of 1280 tokens, which Qwen's README sets
        images = Images(1, height // 4, width // 4)
        sides = module.smart_resize(height // 4, width // 4, step, least, 16384 * step**2)
        assert _sides(model, images=images, min_pixels=least) == sides, least


@pytest.mark.slow
@pytest.mark.parametrize(("model", "step"), [("qwen2.5-vl-7b", 28), ("qwen3-vl-8b", 32)])
def test_no_image_that_a_trainer_scales_brings_more_tokens_than_its_bound_is_taken_for(model, step):
    """Every image within the bound, at most twice as wide as high, through Qwen's processor."""
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    for most in (589_824, 262_144):
        rows, columns = _sides(model, max_pixels=most, scaled_by="trainer")
        sides = [
            module.smart_resize(height, most // height, step, 3136, 16384 * step**2)
            for height in range(isqrt(most // 2) - step, isqrt(most) + 1)
        ]
        highest = max(h * w for h, w in sides if h <= w <= 2 * h)
        assert rows * columns == highest > most


def test_images_of_a_bound_alone_are_as_large_as_it_lets_them_be():
    """Rounded to the nearest patch they would be larger: 1008 x 1008 of a million pixels."""
    for model, step in (("qwen2.5-vl-7b", 28), ("qwen3-vl-8b", 32)):
        for most in (1_000_000, 589_824, 262_144, 50_176, step**2, 1):
            height, width = _sides(model, max_pixels=most)
            assert height <= width <= 2 * height
            tokens = height * width // step**2
            assert max(0.94 * (most // step**2), 1) <= tokens <= max(most // step**2, 1), most


@pytest.mark.slow
def test_images_are_cut_into_tiles_as_the_processors_cut_them():
    got = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    for height in (300, 448, 720, 896, 1080):
        for width in (333, 448, 1000, 1344, 1920):
            columns, rows = got.get_optimal_tiled_canvas((height, width), (448, 448), 1, 12)
            cut = columns * rows + 1 if columns * rows > 1 else 1
            assert tiles.internvl(height, width, 448) == cut, (height, width)


@pytest.mark.parametrize(
    ("size", "canvas"),
    [
        ((336, 336), (1, 1)),
        ((200, 300), (1, 1)),
        ((1024, 1024), (4, 4)),  # shrunk by 3 x 4 tiles, and not by 4 x 4
        ((336, 3000), (1, 9)),
        ((672, 1008), (2, 3)),
        ((5000, 5000), (4, 4)),  # shrunk by any: by as little as may be
    ],
)
def test_llama_4_lays_an_image_on_the_canvas_that_shrinks_it_least(size, canvas):
    assert tiles.llama4(*size, 336) == canvas


@pytest.mark.parametrize(
    ("name", "images", "calls"),
    [
        ("qwen2.5-vl-7b", Images(2, 448, 448), 2 * 16),  # windows of 112 pixels
        ("qwen2.5-vl-7b", Images(1, 1036, 560), 10 * 5),
        ("qwen3-vl-8b", Images(3), 3),  # whole images
    ],
)
def test_attention_that_walks_through_windows_is_counted(name, images, calls):
    assert feed_of(models.load(name), Said(images=images)).calls == calls


@pytest.mark.slow
@pytest.mark.parametrize("size", [(448, 448), (1036, 560), (476, 140), (84, 308)])
def test_windows_are_those_that_the_tower_walks_through(size):
    """transformers cuts the far ones, and pads the image to whole windows before."""
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("transformers.vision_utils")
    rows, columns = (side // 14 for side in size)
    grid = torch.tensor([[1, rows, columns]])
    _, ends = utils.get_vision_window_index(
        grid, spatial_merge_size=2, window_size=112, patch_size=14
    )
    lengths = (ends[1:] - ends[:-1]).tolist()
    measures = feed_of(models.load("qwen2.5-vl-7b"), Said(images=Images(1, *size))).measures
    assert measures["windows"] == len(lengths)
    assert measures["window"] == max(lengths)
    assert measures["window_squares"] == sum(length**2 for length in lengths)


def test_text_models_have_no_feed_unless_they_write_another_length():
    assert feed_of(models.load("llama-3-8b")) is None
    assert feed_of(models.load("t5-large")) is None
    feed = feed_of(models.load("t5-large"), Said(target_len=128))
    assert [given.shape for given in feed.inputs] == [("s",), (128,)]


def test_a_feed_survives_its_json():
    for name in ("qwen2.5-vl-7b", "sdxl-unet", "flux.1-dev", "clip-vit-large"):
        feed = feed_of(models.load(name))
        assert Feed.from_json(feed.to_json()) == feed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", Images(2)),
        (3, Images(3)),
        ("1,size=448", Images(1, 448, 448)),
        ("4, size=1344x896", Images(4, 1344, 896)),
        ({"count": 2, "size": 512}, Images(2, 512, 512)),
        ({"size": "640x480"}, Images(1, 640, 480)),
        ("0", Images(0)),
    ],
)
def test_images_are_read_in_every_form(text, expected):
    assert images(text) == expected


@pytest.mark.parametrize("text", [589_824, "589824", "768x768", "768*768", "768 X 768", "3*2**16"])
def test_pixels_are_a_number_or_its_factors(text):
    if "**" in str(text):
        with pytest.raises(ValueError, match="768x784"):
            pixels(text)
    else:
        assert pixels(text) == 589_824


@pytest.mark.parametrize("text", ["many", "2,width=3", "1,size=0", "1,size=3x4x5", True, {"n": 1}])
def test_other_words_for_images_are_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        images(text)


def codes(flags):
    """Findings of a job at stage 2, by code."""
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 2}}
    return {finding.code: finding for finding in size(without_config(config, flags)).findings}


def test_a_sequence_shorter_than_its_images_is_an_error():
    found = codes(Flags(model="llava-1.5-7b", seq_len=512, gpus_per_node=8))
    assert found["images-beyond-sequence"].severity.value == "error"
    assert "577" in found["images-beyond-sequence"].remedy


def said_of_images(model="qwen3-vl-8b", **said):
    """Severity of each finding about images that some are scaled or refused."""
    found = codes(Flags(model=model, gpus_per_node=8, seq_len=32_768, **said))
    about = ("pixel-bounds-cross", "image-too-long", "input-not-taken")
    return {code: found[code].severity.value for code in about if code in found}


def test_strips_that_the_processor_refuses_are_an_error():
    """Unless LLaMA-Factory widens them before."""
    assert said_of_images(images="1,size=20x4020") == {"image-too-long": "error"}
    assert said_of_images(images="1,size=20x4000") == {}
    for said in ({"scaled_by": "trainer"}, {"model": "llava-1.5-7b"}):
        assert "image-too-long" not in said_of_images(images="1,size=20x4020", **said)


def test_bounds_that_cross_are_warned_of():
    crossed = {"pixel-bounds-cross": "warning"}
    assert said_of_images(images="1", min_pixels=600_000, max_pixels=500_000) == crossed
    assert said_of_images(images="1,size=512", max_pixels=50_176) == crossed  # the processor's
    assert said_of_images(images="1", min_pixels=500_000, max_pixels=500_000) == {}
    trainer = {"scaled_by": "trainer", "images": "1"}
    assert said_of_images(max_pixels=50_176, **trainer) == {}
    assert said_of_images(max_pixels=50_176, min_pixels=60_000, **trainer) == crossed


def test_bounds_of_images_are_warned_of_where_a_model_reads_text():
    assert said_of_images("llama-3-8b", max_pixels=500_000) == {"input-not-taken": "warning"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("llama-3-8b", {"images": "2"}),
        ("vit-base", {"audio_seconds": 30}),
        ("whisper-small", {"audio_seconds": 12.5}),  # padded to 30 whatever it is
        ("llama-3-8b", {"target_len": 128}),
        ("vit-base", {"images": "2"}),  # one image a sample
        ("sdxl-unet", {"images": "0"}),
        ("llava-1.5-7b", {"images": "1,size=1344"}),  # resized to 336
    ],
)
def test_what_a_model_does_not_take_is_said(model, said):
    flags = Flags(model=model, gpus_per_node=8, seq_len=128, **said)
    assert "input-not-taken" in codes(flags)
    assert "input-not-taken" not in codes(Flags(model=model, gpus_per_node=8, seq_len=128))


@pytest.mark.parametrize(
    ("name", "by_data"),
    [
        ("llava-1.5-7b", {"assumed-images"}),  # a conversation brings as many as it likes
        ("qwen2.5-vl-7b", {"assumed-images"}),
        ("vit-base", set()),  # its processor makes every image 224 x 224
        ("whisper-small", set()),  # and its, every recording 30 seconds
        ("flux.1-dev", set()),
    ],
)
def test_what_only_the_samples_tell_is_no_ground_for_a_fit(name, by_data):
    found = codes(Flags(model=name, gpus_per_node=8, seq_len=2048)).values()
    costs = {finding.code for finding in found if finding.direction is Direction.COST}
    assert costs & {"assumed-images", "assumed-audio-seconds"} == by_data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("vit-base", "1"),
        ("sdxl-unet", "1,size=768"),
        ("llava-1.5-7b", "3"),
        ("llava-1.5-7b", "1,size=336"),
        ("qwen2.5-vl-7b", "2,size=1000"),  # rounded to 1008, as the answer shows
        ("qwen2.5-vl-7b", "0"),
        ("gemma-4-e2b", "0"),  # of which nothing but text is derived
    ],
)
def test_images_that_a_model_takes_bring_no_warning(model, said):
    flags = Flags(model=model, gpus_per_node=8, seq_len=4096, images=said)
    assert "input-not-taken" not in codes(flags)


@pytest.mark.parametrize(
    ("model", "images", "is_told"),
    [
        ("vit-base", None, False),
        ("whisper-small", None, False),
        ("llava-1.5-7b", "1", False),
        ("llava-1.5-7b", None, False),  # nobody says that prompts are text alone
        ("llava-1.5-7b", "0", True),
        ("vit-base", "0", False),  # which reads nothing else
        ("llama-3-8b", None, True),
    ],
)
def test_inference_that_counts_tokens_alone_is_no_fit_of_other_inputs(model, images, is_told):
    flags = Flags(model=model, gpus_per_node=1, gpu="h100-80gb", task="inference", images=images)
    answer = size(without_config({}, flags))
    assert (answer.verdict is Verdict.FITS) == is_told
    codes_of_it = {finding.code for finding in answer.findings}
    assert ("inputs-not-modelled" in codes_of_it) != is_told


WAVES = {
    "model_type": "wav2vec2",
    "architectures": ["Wav2Vec2ForSequenceClassification"],
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "conv_dim": [8] * 7, "classifier_proj_size": 8},
    **{"num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 4},
}


@pytest.mark.slow
@pytest.mark.parametrize("masked", [{}, {"mask_time_length": 4}, {"apply_spec_augment": False}])
def test_a_recording_is_too_short_where_the_model_raises(masked, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = {**WAVES, **masked}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    samples = int(shortest(fields) * 16_000)
    config = transformers.Wav2Vec2Config(**fields)
    model = transformers.Wav2Vec2ForSequenceClassification(config).train()
    for count in (samples, samples - 1):
        flags = Flags(
            model=str(tmp_path), gpu="t4", gpus_per_node=1, audio_seconds=repr(count / 16_000)
        )
        codes = {finding.code for finding in size(without_config({}, flags)).findings}
        assert ("recording-too-short" in codes) == (count < samples)
    model(torch.zeros(2, samples))
    with pytest.raises((ValueError, RuntimeError)):
        model(torch.zeros(2, samples - 1))
