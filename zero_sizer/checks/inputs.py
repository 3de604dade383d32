"""Inputs that a model does not take, or that do not go into its sequence."""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.activations.masks import PACKED
from zero_sizer.config.context import Context, Rule
from zero_sizer.findings import IMAGE_TOO_LONG, RECORDING_TOO_SHORT, Direction, Finding
from zero_sizer.models.feeds import Feed, feed_of
from zero_sizer.models.feeds.audio import shortest
from zero_sizer.models.feeds.resizing import (
    LONGEST_RATIO,
    OF_PROCESSOR,
    USUAL_PIXELS,
    Bounds,
    before_the_processor,
    is_too_long,
)

_NAMES = ("images", "audio_seconds", "target_len")
_BOUNDS = ("max_pixels", "min_pixels", "scaled_by")


def _feed(context: Context) -> Feed | None:
    return None if context.model is None else feed_of(context.model, context.workload.said)


def not_taken(context: Context) -> Iterator[Finding]:
    """A length or an image that the model's forward has no place for."""
    if context.model is None:
        return
    feed = _feed(context)
    yield from _other_images(context, feed)
    for name in (*_NAMES, *_BOUNDS):
        of = "images" if name in _BOUNDS else name
        if not _is_stated(context, name) or (feed is not None and of in feed.free):
            continue
        takes = feed.about if feed is not None else "tokens and labels"
        yield context.warning(
            "input-not-taken",
            f"--{name.replace('_', '-')}",
            f"says nothing of {context.model.name}, which is fed {takes}: it changes nothing here",
            "leave it out",
        )


def _is_stated(context: Context, name: str) -> bool:
    """Whether the user says so, and not a tool's default."""
    origin = context.workload.origins.get(name, "")
    return getattr(context.workload, name) is not None and not origin.startswith("default of")


def bound_not_reached(context: Context) -> Iterator[Finding]:
    """Bounds on pixels where images have a size of their own, or are stated within them."""
    feed, said = _feed(context), context.workload.said
    if context.model is None or feed is None or "images" not in feed.free:
        return
    if feed.loops and (said.images is None or not said.images.height):
        return
    for name in _BOUNDS:
        if not _is_stated(context, name):
            continue
        if feed == feed_of(context.model, replace(said, **{name: None})):
            yield context.note(
                "input-not-taken",
                f"--{name.replace('_', '-')}",
                f"changes nothing here: {context.model.name} is fed {feed.about}",
                "state --images where they are of another size",
            )


def bounds_that_cross(context: Context) -> Iterator[Finding]:
    """Fewest pixels above the most, as stated or as the model's processor has them.

    transformers 5.23 image_processing_qwen2_vl.py:78 keeps to either; qwen_vl_utils 0.0.14
    vision_process.py asserts that they do not cross.
    """
    feed, bounds = _feed(context), Bounds.of(context.workload.said)
    stated = {name: _is_stated(context, name) for name in ("min_pixels", "max_pixels")}
    if context.model is None or feed is None or "images" not in feed.free:
        return
    least, most = bounds.least, bounds.most
    if not bounds.by_trainer:
        own = OF_PROCESSOR.get(str(context.model.hf_config.get("model_type")), (None, None))
        least, most = (b if b is not None else o for b, o in zip((least, most), own, strict=True))
    if least is None or most is None or least <= most or not any(stated.values()):
        return
    name = "min_pixels" if stated["min_pixels"] else "max_pixels"
    yield context.warning(
        "pixel-bounds-cross",
        f"--{name.replace('_', '-')}",
        f"images of more than {most:,} pixels are scaled down to so many and those of fewer than "
        f"{least:,} up to so many, so that neither bounds them; qwen_vl_utils, which ms-swift "
        "calls, raises AssertionError",
        f"--min-pixels of at most {most:,}, or --max-pixels of at least {least:,}",
    )


def image_too_long(context: Context) -> Iterator[Finding]:
    """transformers 5.23 image_processing_qwen2_vl.py:74: strips are refused."""
    images, bounds = context.workload.images, Bounds.of(context.workload.said)
    if context.model is None or images is None or not images.count:
        return
    if is_too_long(images, context.model.hf_config.get("model_type"), bounds):
        yield context.error(
            IMAGE_TOO_LONG,
            "--images",
            f"ValueError in the processor: absolute aspect ratio must be smaller than "
            f"{LONGEST_RATIO}, and images are {images.height} x {images.width}",
            "cut or pad such images before they reach the processor",
        )


def image_size_assumed(context: Context) -> Iterator[Finding]:
    """Images that were counted, of a size that nobody stated and the model leaves free."""
    feed, images = _feed(context), context.workload.images
    if context.model is None or feed is None or not feed.loops or images is None:
        return
    most = context.workload.max_pixels
    is_bounded = most is not None and most <= USUAL_PIXELS
    if not images.count or images.height is not None or is_bounded:
        return
    taken = f"each sample is taken to bring {feed.about}, for want of a size"
    remedy = f"--images {images.count},size=WIDTHxHEIGHT says the largest"
    if most is None:
        yield context.note("assumed-image-size", "--images", taken, remedy)
        return
    larger = f"{taken}; up to {most:,} pixels may come"
    found = context.warning("assumed-image-size", "--images", larger, remedy)
    yield replace(found, direction=Direction.COST)


def packed_images(context: Context) -> Iterator[Finding]:
    """Several samples in a row bring the images of all of them."""
    feed, stated = _feed(context), context.workload
    if context.model is None or feed is None or "images" not in feed.free:
        return
    if stated.sequences == PACKED and stated.images is not None and stated.images.count:
        yield context.warning(
            "images-of-packed-rows",
            "--images",
            f"samples are packed, and {feed.brief} are counted in a whole row of tokens",
            "state how many images a row holds, those of all its samples",
        )


def _other_images(context: Context, feed: Feed | None) -> Iterator[Finding]:
    """Images of another number or size than the model takes: one each, or resized on the way."""
    stated = context.workload.images
    if stated is None or feed is None or "images" not in feed.free or context.model is None:
        return
    taken = str(feed.said["images"])
    if stated.height is None or feed.loops:  # Qwen's processor only rounds, which ``about`` shows
        is_taken = taken.partition(",")[0] == str(stated.count)
    else:
        bounds = Bounds.of(context.workload.said)
        handed_on = before_the_processor(stated, context.model.hf_config.get("model_type"), bounds)
        is_taken = taken == handed_on.about
    if is_taken:
        return
    yield context.warning(
        "input-not-taken",
        "--images",
        f"{stated.about} is not what {context.model.name} takes: each sample brings {feed.about}",
        f"say --images {taken}",
    )


def images_beyond_sequence(context: Context) -> Iterator[Finding]:
    """transformers 5.23 modeling_llava.py:209, modeling_qwen2_5_vl.py:1103: features != tokens."""
    feed, seq_len = _feed(context), context.workload.seq_len
    if feed is None or seq_len is None or context.model is None or seq_len >= feed.fewest:
        return
    yield context.error(
        "images-beyond-sequence",
        "--seq-len",
        f"ValueError in the forward: {context.model.name} is fed {feed.about}, and sequences are "
        f"cut to {seq_len:,}: image features and image tokens do not match",
        f"give at least {feed.fewest:,} tokens, or fewer or smaller --images",
    )


def recording_too_short(context: Context) -> Iterator[Finding]:
    """Samples of which a model's convolutions leave no frame, or fewer than are masked at once."""
    feed, seconds = _feed(context), context.workload.audio_seconds
    if feed is None or "audio_seconds" not in feed.free or context.model is None or not seconds:
        return
    least = shortest(context.model.hf_config)
    if seconds < least:
        yield context.error(
            RECORDING_TOO_SHORT,
            "--audio-seconds",
            f"ValueError or RuntimeError in the forward: {seconds:g} seconds leave "
            f"{context.model.name} too few frames to convolve and to mask",
            f"give at least {least:g} seconds, or the length of the longest recording",
        )


def no_step_time(context: Context) -> Iterator[Finding]:
    """Why there are no seconds where a GPU is named."""
    feed = _feed(context)
    if feed is None or context.model is None or context.cluster.gpu is None:
        return
    from zero_sizer.models.feeds.rows import is_timed  # of what is fed alone

    if is_timed(context.model):
        return
    yield context.note(
        "no-step-time",
        "--gpu",
        f"no seconds are given of {context.model.name}: what its layers multiply of a sample that "
        f"brings {feed.brief} is not modelled; `choose` and `size` order plans by tokens alone",
        "`zero-sizer calibrate` reads measured steps of other jobs; time a few steps of this one",
    )


RULES: tuple[Rule, ...] = (
    not_taken,
    bound_not_reached,
    bounds_that_cross,
    image_too_long,
    image_size_assumed,
    packed_images,
    images_beyond_sequence,
    recording_too_short,
    no_step_time,
)
