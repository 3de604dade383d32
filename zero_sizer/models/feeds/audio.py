"""Models fed recordings."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.fields import whole
from zero_sizer.models.feeds.records import Feed, Input, Said, labels

_FRAMES_PER_POSITION = 2  # Whisper's second convolution has stride 2
_FRAMES_PER_SECOND = 100
_RATE = 16_000  # samples a second that wav2vec 2.0 and its kin are trained on
_USUAL_SECONDS = 20.0  # run_speech_recognition_ctc.py's max_duration_in_seconds
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
