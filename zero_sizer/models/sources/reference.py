"""From what a user writes after ``--model`` to a ``ModelSpec``."""

import re
from pathlib import Path

from zero_sizer.errors import InputError
from zero_sizer.models.sources.bundled import bundled_names, load_bundled, read_bundled
from zero_sizer.models.sources.hub import (
    find,
    known_names,
    load_known,
    public_config,
    public_names,
    same_shape,
)
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.files import existing
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import did_you_mean, nearest, shown

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_NUMBERS = re.compile(r"\s*\w+\s*=.*", re.DOTALL)
_SIZE = re.compile(r"-(\d+x)?\d+(\.\d+)?[bm]\b.*")
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_OWN_CONFIG = "any other by its config.json: --model path/to/config.json"
_NUMBERS_TOO = "without it, numbers: --model params=7e9,layers=32,hidden=4096"
_LIST_COMMAND = "`zero-sizer models` lists the bundled ones"


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model for a reader; ``source`` names the public config its shapes come from.

    A UNet has no layers and no width that are all alike.
    """

    name: str
    params: int
    layers: int | None
    hidden: int | None
    source: str


def describe_all() -> tuple[ModelRow, ...]:
    """A row for every model that a name means, by name."""
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
    rows += map(_row_of, public_names())
    return tuple(sorted(rows, key=lambda row: row.name))


def _row_of(name: str) -> ModelRow:
    """A row for a model of which a public config is kept."""
    spec = load_known(name)
    arch = spec.arch
    return ModelRow(
        name=name,
        params=spec.num_params,
        layers=(arch.num_layers or 0) + (arch.decoder_layers or 0),
        hidden=arch.hidden or 0,
        source=f"{public_config(name)['source']} config.json",
    )


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
    found = find(name)
    if found is not None:
        return found
    raise _unknown(name)


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


def _unknown(name: str) -> InputError:
    if not name:
        return InputError("no model is named", remedy=_LIST_COMMAND)
    if name.endswith((".json", ".safetensors")) or name.startswith((".", "/", "~")):
        return _no_file(name)
    base = name.lower().rpartition("/")[2]
    hint = did_you_mean(base, _of_this_family(base), count=3)
    own = f"its config.json says it: hf download {name[:60]} config.json --local-dir ."
    is_hub = _HUB_ID.fullmatch(name) is not None
    remedy = "; ".join(
        part for part in (hint, own if is_hub else _OWN_CONFIG, _NUMBERS_TOO, _LIST_COMMAND) if part
    )
    return InputError(f"unknown model {shown(name)}", remedy=remedy, where="--model")


def _of_this_family(name: str) -> list[str]:
    """Known names that are like ``name`` without their sizes too: gpt-oss is no gpt-neox."""
    own = _SIZE.sub("", name)
    families = {_SIZE.sub("", known) for known in known_names()}
    near = set(nearest(own, families, count=len(families), cutoff=0.75))
    return [known for known in known_names() if _SIZE.sub("", known) in near]


def _no_file(name: str) -> InputError:
    """A path of another machine often ends with the name of the model that lies there."""
    cached = re.search(r"/models--[\w.-]+?--([\w.-]+)/", name[:1000])  # of the hub's cache
    meant = same_shape((cached[1] if cached else Path(name).name).lower())
    remedy = "" if meant is None else f"if that is {meant}, say --model {meant}"
    return InputError(f"there is no model file {shown(name)}", remedy=remedy, where="--model")
