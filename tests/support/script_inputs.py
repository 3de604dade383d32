"""Folders that training scripts read: small models, texts, pictures, recordings, metrics."""

import json
from pathlib import Path
from typing import Any

METRIC = """
import datasets
import evaluate

class Fraction(evaluate.Metric):
    def _info(self):
        kind = datasets.Value({kind!r})
        return evaluate.MetricInfo(
            description="", citation="",
            features=datasets.Features({{"predictions": kind, "references": kind}}),
        )

    def _compute(self, predictions, references, **options):
        pairs = list(zip(predictions, references, strict=True))
        return {answer}
"""
EQUAL = "sum(a == b for a, b in pairs) / max(1, len(pairs))"
METRICS = {  # evaluate.load(NAME) finds NAME/NAME.py
    "accuracy": METRIC.format(kind="int64", answer=f'{{"accuracy": {EQUAL}}}'),
    "rouge": METRIC.format(kind="string", answer=f'{{"rouge1": {EQUAL}}}'),
    "wer": METRIC.format(kind="string", answer=EQUAL),
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 512,
    "d_model": 64,
    "d_ff": 128,
    "d_kv": 16,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
VIT = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
VIT_IMAGES = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
WHISPER = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "vocab_size": 512,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "num_mel_bins": 20,
    "max_source_positions": 100,
    "max_target_positions": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
WHISPER_SOUNDS = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "WhisperProcessor",
    "feature_size": 20,
    "chunk_length": 2,  # seconds, of 100 frames each
    "sampling_rate": 16_000,
}
CHAT = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + '</s>' }}{% endfor %}"


def write(folder: Path) -> None:
    """Everything into ``folder``, beside the ``model`` that lies there."""
    for name, text in METRICS.items():
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text(text)
    _model(folder, "t5", T5, {})
    _model(folder, "vit", VIT, {"preprocessor_config.json": VIT_IMAGES})
    _model(folder, "whisper", WHISPER, {"preprocessor_config.json": WHISPER_SOUNDS})
    _whisper_tokenizer(folder / "whisper")
    _update(folder / "model" / "tokenizer_config.json", chat_template=CHAT)
    question, answer = ({"role": "user", "content": "what"}, {"role": "assistant", "content": "a"})
    rows: dict[str, dict[str, Any]] = {
        "summaries.jsonl": {"document": "the cat runs " * 8, "summary": "a cat runs"},
        "speech/train.jsonl": {"audio": [0.0] * 32_000, "sentence": "ab"},
        "chats/train.jsonl": {"messages": [question, answer]},
        "pairs/train.jsonl": {"prompt": "what", "chosen": "a cat", "rejected": "a dog"},
        "prompts/train.jsonl": {"prompt": [question]},
    }
    for name, row in rows.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join([json.dumps(row)] * 64))
    _pictures(folder / "pictures")


def _model(folder: Path, name: str, config: dict[str, Any], more: dict[str, Any]) -> None:
    (folder / name).mkdir()
    for file, values in {"config.json": config, **more}.items():
        (folder / name / file).write_text(json.dumps(values))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name / file).write_text((folder / "model" / file).read_text())


def _update(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _whisper_tokenizer(folder: Path) -> None:
    from transformers import WhisperTokenizer

    names = ["<pad>", "<|startoftranscript|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"]
    vocab = {name: i for i, name in enumerate(names)}
    WhisperTokenizer(vocab=vocab, merges=[], pad_token="<pad>").save_pretrained(folder)


def _pictures(folder: Path) -> None:
    from PIL import Image

    for kind in ("cats", "dogs"):
        (folder / kind).mkdir(parents=True)
        for i in range(32):
            Image.new("RGB", (48, 40), (i, 2 * i, 3 * i)).save(folder / kind / f"{i}.png")
