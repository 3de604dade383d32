"""From what a user writes after ``--model`` to a ``ModelSpec``."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from zero_sizer.errors import InputError
from zero_sizer.models.sources.bundled import bundled_names, load_bundled, read_bundled
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.files import existing
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import did_you_mean, shown

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_NUMBERS = re.compile(r"\s*\w+\s*=.*", re.DOTALL)
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_OF_TUNING = frozenset({"instruct", "chat", "it", "hf", "base", "meta", "deduped", "pt"})
_TUNED = {  # by their cards, under other names
    "google/vit-base-patch16-224-in21k": "vit-base",
    "google/vit-large-patch16-224-in21k": "vit-large",
    "openai/whisper-large": "whisper-large-v2",
    "liuhaotian/llava-v1.5-7b": "llava-1.5-7b",
    "liuhaotian/llava-v1.5-13b": "llava-1.5-13b",
    "meta-llama/llama-3.3-70b-instruct": "llama-3.1-70b",
    "deepseek-ai/deepseek-v3-base": "deepseek-v3",
    "deepseek-ai/deepseek-r1": "deepseek-v3",
    "deepseek-ai/deepseek-r1-zero": "deepseek-v3",
    "deepseek-ai/deepseek-r1-distill-llama-8b": "llama-3.1-8b",
    "deepseek-ai/deepseek-r1-distill-llama-70b": "llama-3.1-70b",
    "deepseek-ai/deepseek-r1-distill-qwen-14b": "qwen2.5-14b",
    "deepseek-ai/deepseek-r1-distill-qwen-32b": "qwen2.5-32b",
}
_LIST_COMMAND = "`zero-sizer models` lists the bundled ones"


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One bundled model for a reader; ``source`` names the public config its shapes come from.

    A UNet has no layers and no width that are all alike.
    """

    name: str
    params: int
    layers: int | None
    hidden: int | None
    source: str


def describe_all() -> tuple[ModelRow, ...]:
    """A row for every bundled model, by name."""
    rows = []
    for name in bundled_names():
        stored = read_bundled(name)
        arch = stored["arch"]
        rows.append(
            ModelRow(
                name=name,
                params=stored["num_params"],
                layers=(arch["num_layers"] or 0) + (arch["decoder_layers"] or 0) or None,
                hidden=arch["hidden"],
                source=stored["source"],
            )
        )
    return tuple(rows)


def load(reference: str, *, allow_code: bool = True) -> ModelSpec:
    """The model that ``reference`` names.

    Args:
        reference: a bundled name, the path of a Hugging Face config.json (or its folder), of a
            safetensors file or index, ``package.module:factory``, or numbers such as
            ``params=6.7e9,layers=32,hidden=4096``.
        allow_code: whether a factory may be imported and called.

    Raises:
        InputError: there is no such model, or what is there cannot be read.
        UnsupportedError: reading it needs a package that is not installed.
    """
    name = reference.strip()
    if name.lower() in bundled_names():
        return load_bundled(name.lower())
    path = existing(name)
    if path is not None:
        return _from_path(path)
    if _FACTORY.fullmatch(name):
        if not allow_code:
            raise InputError(
                f"{shown(name)} is code to run, which a file does not get to name",
                remedy=f"give --model {name[:60]}, or --allow-code if you trust the file",
            )
        from zero_sizer.models.sources.torch_module import load_factory

        return load_factory(name)
    if _NUMBERS.fullmatch(name):
        from zero_sizer.models.sources.numbers import load_numbers

        return load_numbers(name)
    by_repository = _bundled_repositories().get(name.lower())
    if by_repository:
        return load_bundled(by_repository)
    other = _same_shape(name.lower())
    if other:
        spec = load_bundled(other)
        return replace(spec, origin=f"{spec.origin}, whose shape {name} has")
    raise _unknown(name)


def _same_shape(name: str) -> str | None:
    """The bundled model that ``name`` was tuned from: tuning changes no shape.

    Of a hub repository the owner is the same, and the name but for words such as ``Instruct``; a
    quantized or lengthened one has words that are kept, and is another model.
    """
    found = _TUNED.get(name)
    owner, slash, base = name.rpartition("/")
    if found is None and slash:
        plain = {_untuned(of): at for of, at in _bundled_repositories().items()}
        found = plain.get(f"{owner}/{_untuned(base)}")
    elif found is None:
        found = {_untuned(of): of for of in bundled_names()}.get(_untuned(base))
    return found


def _untuned(name: str) -> str:
    owner, slash, base = name.rpartition("/")
    words = (word for word in base.split("-") if word not in _OF_TUNING)
    return f"{owner}{slash}{'-'.join(words)}"


def _from_path(path: Path) -> ModelSpec:
    if path.is_dir():
        return _from_path(_in_folder(path))
    if path.name.endswith((".safetensors", ".safetensors.index.json")):
        from zero_sizer.models.sources.safetensors import load_safetensors

        return load_safetensors(path)
    from zero_sizer.models.sources.hf_config import load_hf_config

    return load_hf_config(path)


def _in_folder(folder: Path) -> Path:
    """What to read in a model folder: its config, else its weights' headers."""
    for name in ("config.json", "model.safetensors.index.json", "model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        "is a folder without config.json, model.safetensors or its index", where=str(folder)
    )


@cache
def _bundled_repositories() -> dict[str, str]:
    """Lower-case hub repository -> bundled name (the shortest, where several share one)."""
    found: dict[str, str] = {}
    for name in sorted(bundled_names(), key=len, reverse=True):
        found[read_bundled(name)["source"].split()[0].lower()] = name
    return found


def _unknown(name: str) -> InputError:
    if not name:
        return InputError("no model is named", remedy=_LIST_COMMAND)
    if name.endswith((".json", ".safetensors")) or name.startswith((".", "/", "~")):
        return InputError(f"there is no model file {shown(name)}", where="--model")
    hint = did_you_mean(name.lower().rpartition("/")[2], bundled_names(), count=3)
    own = f"its config.json says it: hf download {name[:60]} config.json --local-dir ."
    is_hub = _HUB_ID.fullmatch(name) is not None
    remedy = "; ".join(part for part in (hint, own if is_hub else "", _LIST_COMMAND) if part)
    return InputError(f"unknown model {shown(name)}", remedy=remedy, where="--model")
