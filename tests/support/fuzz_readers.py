"""Cases for every reader, called as the commands call them."""

import contextlib
from pathlib import Path
from random import Random

from support.fuzz_samples import JOB, MODELS, RECORDING
from support.fuzz_values import (
    Case,
    adapter,
    as_json,
    as_yaml,
    config_text,
    hostfile,
    mutated,
    pattern,
    safetensors,
)


def read_document(random: Random) -> Case:
    from zero_sizer.config import document

    return Case(
        "reader: config", (), {"f": config_text(random)}, lambda at: document.load(str(at / "f"))
    )


def read_yaml(random: Random) -> Case:
    from zero_sizer.job import yaml_lines

    data = as_yaml(random, mutated(random, JOB))
    return Case("reader: YAML", (), {"f": data}, lambda at: yaml_lines.load(str(at / "f")))


def read_hostfile(random: Random) -> Case:
    from zero_sizer.hardware import hostfile as reader

    return Case(
        "reader: hostfile", (), {"f": hostfile(random)}, lambda at: reader.read(str(at / "f"))
    )


def read_recording(random: Random) -> Case:
    from zero_sizer.dryrun import recording

    data = as_json(random, mutated(random, RECORDING))
    return Case("reader: recording", (), {"f": data}, lambda at: recording.read(at / "f"))


def read_config_json(random: Random) -> Case:
    from zero_sizer.models.sources.hf_config import read_config

    data = as_json(random, mutated(random, random.choice(MODELS)))
    return Case("reader: config.json", (), {"f": data}, lambda at: read_config(at / "f"))


def read_adapter(random: Random) -> Case:
    from zero_sizer.models.changes import lora_config as reader

    data = as_json(random, adapter(random))
    return Case("reader: adapter", (), {"f": data}, lambda at: reader.read(str(at / "f"), "f"))


def read_safetensors(random: Random) -> Case:
    from zero_sizer.models.sources.safetensors import load_safetensors

    data = safetensors(random)
    return Case("reader: safetensors", (), {"f.safetensors": data},
                lambda at: load_safetensors(at / "f.safetensors"))  # fmt: skip


def read_pattern(random: Random) -> Case:
    from zero_sizer.util.patterns import Budget, Pattern, PatternError

    text, name = (
        pattern(random, 6),
        random.choice(("model.layers.11.self_attn.q_proj", "a" * 120, "")),
    )

    def match(_: Path) -> None:
        with contextlib.suppress(PatternError):
            Pattern(text, Budget(50_000_000)).matches_all(name)

    return Case("reader: pattern", (), {}, match)


def read_bundled(random: Random) -> Case:
    from zero_sizer.activations import store

    document = mutated(random, PROFILE)
    if isinstance(document, dict) and random.random() < 0.5:
        document["sha256"] = store._seal_of({k: v for k, v in document.items() if k != "sha256"})
    data = as_json(random, document)
    return Case("reader: cached profile", (), {"f": data}, lambda at: store.read_cached(at / "f"))


PROFILE = {
    "schema_version": 3,
    "name": "x",
    "key": "k",
    "setups": {"a": [1, 2]},
    "sha256": "0" * 64,
}
