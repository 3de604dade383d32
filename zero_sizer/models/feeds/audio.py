"""Models fed recordings."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.fields import whole
from zero_sizer.models.feeds.records import Feed, Input, Said, labels

_FRAMES_PER_POSITION = 2  # Whisper's second convolution has stride 2
_FRAMES_PER_SECOND = 100
_RATE = 16_000  # samples a second that wav2vec 2.0 and its kin are trained on
_USUAL_SECONDS = 20.0  # run_speech_recognition_ctc.py's max_duration_in_seconds
_KERNELS, _STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
_MASKED = 10  # frames in a row; transformers 5.23 modeling_wav2vec2.py:1246
_WAVES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "sew")


def whisper(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """Frames of a spectrogram, always 30 seconds of them, and the decoder's tokens.

    transformers' Whisper refuses any other length (modeling_whisper.py, ``expected_seq_length``).
    """
    if fields.get("model_type") != "whisper" or not name.endswith("ForConditionalGeneration"):
        return None
    frames = _FRAMES_PER_POSITION * whole(fields, "max_source_positions", default=1500)
    mels = whole(fields, "num_mel_bins", default=80)
    return Feed(
        inputs=(Input(name="input_features", shape=(mels, frames)), labels()),
        most=whole(fields, "max_target_positions", default=448),
        brief=f"{frames // _FRAMES_PER_SECOND} s of audio",
        about=f"{frames // _FRAMES_PER_SECOND} seconds of audio, {frames // 2} frames of the "
        "encoder; --seq-len is the decoder's tokens",
        measures={"frames": frames // _FRAMES_PER_POSITION},
        said={"audio_seconds": frames / _FRAMES_PER_SECOND},
    )


def waves(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """Samples of a recording and a label: run_audio_classification.py's batch."""
    if fields.get("model_type") not in _WAVES or not name.endswith("ForSequenceClassification"):
        return None
    seconds = said.audio_seconds or _USUAL_SECONDS
    values = Input(name="input_values", shape=(int(seconds * _RATE),))
    return Feed(
        inputs=(values, Input(name="labels", is_integer=True)),
        fewest=0,
        brief=f"{seconds:g} s of audio",
        about=f"{seconds:g} seconds of audio at {_RATE} samples a second",
        said={"audio_seconds": seconds},
        free=("audio_seconds",),
    )


def shortest(fields: Mapping[str, Any]) -> float:
    """Seconds of the shortest recording that trains a model fed samples; 0.0 for any other.

    Its convolutions must leave a frame, or as many as are masked at once: transformers 5.23
    modeling_wav2vec2.py, ``_compute_mask_indices``.
    """
    if fields.get("model_type") not in _WAVES:
        return 0.0
    masks = fields.get("apply_spec_augment", True) and fields.get("mask_time_prob", 0.05)
    samples = whole(fields, "mask_time_length", default=_MASKED) if masks else 1
    kernels, strides = fields.get("conv_kernel", _KERNELS), fields.get("conv_stride", _STRIDES)
    if "conv_kernel" not in fields and fields["model_type"] == "sew":
        return 0.0  # its defaults are others
    for kernel, stride in zip(reversed(_wholes(kernels)), reversed(_wholes(strides)), strict=False):
        samples = (samples - 1) * stride + kernel
    return samples / _RATE


def _wholes(values: Any) -> list[int]:
    found = list(values) if isinstance(values, list | tuple) else []
    return [value for value in found if type(value) is int and 0 < value <= _RATE]
