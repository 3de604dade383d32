"""Where profiles lie: shipped, by family or by content, or in the user's cache, by content."""

import json
import os
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from zero_sizer.activations import structure
from zero_sizer.activations.profile import Profile
from zero_sizer.errors import InputError
from zero_sizer.models.feeds.records import Feed
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity

_DATA = Path(__file__).parent / "data"
_PREFIX, _INDEX = "activations.", "index.json"
SCHEMA_VERSION = 3
_SEAL = "sha256"
_MAX_BYTES = 64 * 2**20
_BUNDLED = "bundled model "

# Beside the tensors' shapes, what decides which operators run.
_FIELDS = [
    "activation_function",
    "alibi",
    "architectures",
    "attention_bias",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "do_layer_norm_before",
    "dropout",
    "dropout_rate",
    "embd_pdrop",
    "feed_forward_proj",
    "hidden_act",
    "hidden_activation",
    "hidden_dropout",
    "hidden_dropout_prob",
    "model_type",
    "multi_query",
    "new_decoder_architecture",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_heads",
    "num_key_value_heads",
    "parallel_attn",
    "qk_layernorm",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "resid_pdrop",
    "sliding_window",
    "use_parallel_residual",
    "use_sliding_window",
    "v_head_dim",
]


_NESTED = ("text_config", "vision_config", "audio_config")
_TRACED_AS = 2
"""Counts the ways in which setups have been told apart: text alone, and InternVL, were one part."""


def key_of(spec: ModelSpec) -> str:
    """Key that tells models apart whose profiles differ: tensors, and the fields above.

    Of a config with others in it, or of diffusers, all fields count: any may decide what runs.
    """
    import hashlib  # only for models that are not bundled

    fields = {name: spec.hf_config[name] for name in _FIELDS if name in spec.hf_config}
    if "_class_name" in spec.hf_config or any(
        isinstance(spec.hf_config.get(n), Mapping) for n in _NESTED
    ):
        fields = dict(spec.hf_config)
    shapes = [(tensor.name, tensor.shape, tensor.trainable) for tensor in spec.parameters]
    if spec.adapter is not None:
        fields["adapter drops"] = spec.adapter.lora_dropout > 0
    if spec.quantization is not None:
        fields["quantization"] = spec.quantization.to_json()
    text = json.dumps([fields, shapes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Asked(NamedTuple):
    """One way of running a model: what ``Profile.evaluate`` takes."""

    variant: str
    attention: str
    checkpointing: bool


def setup_key(
    spec: ModelSpec, feed: Feed | None, asked: Asked, at: tuple[int, int] | None = None
) -> str:
    """Key of one setup's profile.

    Args:
        spec: the model.
        feed: what a sample brings; None: token ids and labels.
        asked: the setup.
        at: (batch, sequence), where the profile holds at no other.
    """
    import hashlib

    fed = [] if feed is None else [feed.to_json()["inputs"], dict(feed.options), feed.target]
    text = json.dumps([_TRACED_AS, _key(Identity(spec)), fed, asked, at], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load_setup(
    spec: ModelSpec, feed: Feed | None, asked: Asked, at: tuple[int, int]
) -> Profile | None:
    """The profile of one setup in the user's cache, for any batch and sequence, or for these."""
    if not spec.exact_tensors or not spec.hf_config:
        return None
    return _setup(Identity(spec), Identity(feed), asked) or _setup(
        Identity(spec), Identity(feed), asked, at
    )


@lru_cache(maxsize=256)
def _setup(
    spec: Identity, feed: Identity, asked: Asked, at: tuple[int, int] | None = None
) -> Profile | None:
    return read_cached(cache_file(setup_key(spec.of, feed.of, asked, at)))


def cache_file(key: str) -> Path:
    """The profile of content ``key`` in the user's cache; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "zero_sizer" / "profiles" / f"{key}.json"


def load(spec: ModelSpec, feed: Feed | None = None) -> Profile | None:
    """The profile of ``spec``: of its family, shipped, or traced before by ``models --profile``.

    Args:
        spec: the model.
        feed: what a sample brings; None: token ids and labels. Else its family's alone.
    """
    found = structure.load(spec, feed)
    if found is not None or feed is not None:
        return found
    if not spec.exact_tensors or not spec.hf_config:
        return None
    if spec.origin.startswith(_BUNDLED) and spec.base is None:
        # a cut of it has another name, but the same blocks
        return _shipped(spec.origin.removeprefix(_BUNDLED).partition(" ")[0])
    key = _key(Identity(spec))
    name = _index().get(key)
    return _shipped(name) if name else _from_cache(key)


@lru_cache(maxsize=64)
def _key(spec: Identity) -> str:
    return key_of(spec.of)


@cache
def _shipped(name: str) -> Profile | None:
    return _read(_DATA / f"{_PREFIX}{name}.json")


@cache
def _index() -> dict[str, str]:
    """Content key -> bundled name, of those that have a profile of their own."""
    try:
        index: dict[str, str] = json.loads((_DATA / _INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return index


@cache
def _from_cache(key: str) -> Profile | None:
    return read_cached(cache_file(key))


def _read(path: Path) -> Profile | None:
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return _profile(document)


def _profile(document: Any) -> Profile | None:
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        return None
    return Profile(document)


def read_cached(path: Path) -> Profile | None:
    """The profile in a file of the cache; None where it is not, as ``write_cached`` wrote it."""
    if not path.exists():  # nearly always
        return None
    from zero_sizer.util.files import read_json

    try:
        document = read_json(path, _MAX_BYTES, "a profile")
    except InputError:  # broken or cut off: as if it were not there
        return None
    if not isinstance(document, dict) or document.pop(_SEAL, None) != _seal_of(document):
        return None
    try:
        return _profile(document)
    except (AttributeError, KeyError, TypeError, ValueError):  # sealed, and yet not ours
        return None


def write_cached(path: Path, document: Mapping[str, Any]) -> None:
    """Write a profile into the cache, with a digest of what it says."""
    write(path, {**document, _SEAL: _seal_of(document)})


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a profile, whole or not at all."""
    from zero_sizer.util.files import write_text

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, separators=(",", ":")) + "\n")
    _from_cache.cache_clear()
    _setup.cache_clear()


def _seal_of(document: Mapping[str, Any]) -> str:
    import hashlib

    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
