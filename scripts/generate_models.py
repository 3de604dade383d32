"""Writes the bundled models and the config defaults from transformers' own classes.

Usage: ``python scripts/generate_models.py [NAME ...] [--check]`` in an environment that has
torch and transformers. Models are built on the meta device: no weights, no network.
"""

import argparse
import gc
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from model_sources import CONFIG_FIELDS, SOURCES, Source

from zero_sizer.models.feeds import feed_of
from zero_sizer.models.layouts.architecture import from_hf_config
from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.sources.torch_module import spec_from_module
from zero_sizer.models.spec import Architecture, ModelSpec
from zero_sizer.simulator.uncompiled import compile_nothing

DATA = Path(__file__).parent.parent / "zero_sizer" / "models" / "data"
MODEL_DTYPE = torch.bfloat16  # built in this one, so that tensors that keep another one show it
UNKEPT = frozenset({"layer_types", "pad_token_id"})  # long, or no matter once the model is built
# Weights on the meta device have no values, and drawing them takes as long as all the rest.
for kind in (torch.nn.Linear, torch.nn.Embedding, torch.nn.modules.conv._ConvNd):
    kind.reset_parameters = lambda self: None  # type: ignore[method-assign]
STANDARD_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads")


def build(source: Source) -> torch.nn.Module:
    """The model of ``source`` on the meta device, in ``MODEL_DTYPE``."""
    fields = {key: value for key, value in source.config.items() if key != "dtype"}
    if hasattr(diffusers, source.family):
        with torch.device("meta"):
            denoiser: torch.nn.Module = getattr(diffusers, source.family).from_config(fields)
        return torch.nn.Module.to(denoiser, MODEL_DTYPE)
    config = transformers.AutoConfig.for_model(source.family, **fields)
    model_class = getattr(transformers, source.head)
    with torch.device("meta"):
        model: torch.nn.Module = model_class._from_config(config, dtype=MODEL_DTYPE)
    return model


def _shape(tensor: torch.Tensor, first_names: dict[int, str], name: str) -> Any:
    """Shape; the first name of a tied one; a mapping of one that is not trained."""
    first = first_names.setdefault(id(tensor), name)
    if first != name:
        return first
    shape = list(tensor.shape)
    return shape if tensor.requires_grad else {"shape": shape, "trainable": False}


def _buffer(tensor: torch.Tensor) -> dict[str, Any]:
    kept = (
        {} if tensor.dtype == MODEL_DTYPE else {"dtype": str(tensor.dtype).removeprefix("torch.")}
    )
    return {"shape": list(tensor.shape), **kept}


def module_rows(model: torch.nn.Module) -> list[list[Any]]:
    """``[name, class, own parameters, own buffers]`` of every module, parents first."""
    rows: list[list[Any]] = []
    first_names: dict[int, str] = {}
    for name, module in model.named_modules():
        dot = "." if name else ""
        parameters = {
            key: _shape(tensor, first_names, f"{name}{dot}{key}")
            for key, tensor in module._parameters.items()
            if tensor is not None
        }
        if any(t is not None and t.dtype != MODEL_DTYPE for t in module._parameters.values()):
            raise SystemExit(f"{name}: a parameter that keeps its own dtype; extend the format")
        buffers = {k: _buffer(t) for k, t in module._buffers.items() if t is not None}
        rows.append([name, type(module).__name__, parameters, buffers])
    return rows


def _trim(row: list[Any]) -> list[Any]:
    while row and row[-1] == {}:
        row = row[:-1]
    return row


def _is_in(prefix: str, name: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")


def compact(rows: list[list[Any]]) -> list[Any]:
    """Runs of equal numbered children (blocks of a ModuleList) stored once."""
    out: list[Any] = []
    lists = {row[0] for row in rows if row[1] == "ModuleList"}
    i = 0
    while i < len(rows):
        parent, _, index = rows[i][0].rpartition(".")
        if parent not in lists or not index.isdigit():
            out.append(_trim(rows[i]))
            i += 1
            continue
        prefix = rows[i][0]
        end = next((k for k in range(i, len(rows)) if not _is_in(prefix, rows[k][0])), len(rows))
        block = rows[i:end]  # modules come parents first, so a block's are one after the other
        relative = [_trim([row[0][len(prefix) + 1 :], *row[1:]]) for row in block]
        i += len(block)
        last = out[-1] if out and isinstance(out[-1], dict) else None
        if last and last["repeat"] == parent + ".{i}" and last["modules"] == relative:
            last["count"] += 1
        else:
            repeat = {"repeat": parent + ".{i}", "first": int(index), "count": 1}
            out.append({**repeat, "modules": relative})
    return out


def as_written(source: Source) -> dict[str, Any]:
    """The config.json of a model of transformers."""
    return {**source.config, "model_type": source.family, "architectures": [source.head]}


def is_fed(source: Source) -> bool:
    """True if the model is fed more than tokens and labels."""
    spec = ModelSpec(name="", origin="", parameters=(), hf_config=as_written(source))
    return feed_of(spec) is not None


def kept_config(source: Source, config: Any) -> dict[str, Any]:
    """The config's fields that matter here, under the family's and the standard names."""
    if hasattr(diffusers, source.family):
        return dict(sorted({**source.config, "_class_name": source.family}.items()))
    fields = {k: v for k, v in config.to_dict().items() if k in CONFIG_FIELDS and k not in UNKEPT}
    if source.as_written or is_fed(source):  # of others transformers fills in the rest
        standard = fields if source.family in FAMILIES else {}
        return dict(sorted({**standard, **as_written(source)}.items()))
    for name in STANDARD_NAMES:
        fields[name] = getattr(config, name)
    if "dtype" in source.config:
        fields["dtype"] = source.config["dtype"]
    fields["architectures"] = [source.head]
    return dict(sorted(fields.items()))


def architecture(source: Source, model: torch.nn.Module, fields: dict[str, Any]) -> Architecture:
    """Widths; of a config with others in it, those of the language model."""
    if not source.as_written and not is_fed(source) and not hasattr(diffusers, source.family):
        return from_hf_config(fields)
    return replace(spec_from_module(model).arch, family=source.family)


def stored(name: str) -> dict[str, Any]:
    """``SOURCES[name]`` as JSON; raises where the count is not the published one."""
    source = SOURCES[name]
    model = build(source)
    total = sum(tensor.numel() for tensor in model.parameters())
    if source.params not in (None, total):
        raise SystemExit(f"{name}: {total:,} parameters, published {source.params:,}")
    fields = kept_config(source, model.config)
    return {
        "name": name,
        "source": f"{source.source} config.json",
        "model_class": source.head,
        "transformers": transformers.__version__,
        "num_params": total,
        "arch": asdict(architecture(source, model, fields)),
        "hf_config": fields,
        "modules": compact(module_rows(model)),  # last: render writes it apart
    }


def render(value: dict[str, Any]) -> str:
    """JSON with one line a module: small, and readable in a diff."""
    head = [f" {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()][:-1]
    text = "{\n" + ",\n".join(head) + ',\n "modules": [\n'
    return text + ",\n".join(_lines(value["modules"])) + "\n ]\n}\n"


def _lines(items: Iterable[Any]) -> Iterable[str]:
    for item in items:
        if isinstance(item, list):
            yield "  " + json.dumps(item)
        else:
            block = {key: value for key, value in item.items() if key != "modules"}
            inner = ",\n".join("    " + json.dumps(row) for row in item["modules"])
            yield "  " + json.dumps(block)[:-1] + ', "modules": [\n' + inner + "]}"


def _write(path: Path, text: str, *, check: bool) -> bool:
    """Whether ``path`` already held ``text``; writes it unless ``check``."""
    same = path.exists() and path.read_text(encoding="utf-8") == text
    if not same and not check:
        path.write_text(text, encoding="utf-8")
    return same


def main() -> int:
    """Writes (or with ``--check`` compares) the files named; 1 where one was not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="bundled models; all when none is named")
    parser.add_argument("--check", action="store_true", help="only say which are not current")
    options = parser.parse_args()
    stale = []
    compile_nothing()  # diffusers imports bitsandbytes, which asks for the compiler's settings
    gc.freeze()  # what was imported stays; models make more objects than cycles
    gc.set_threshold(100_000, 50, 100)
    for name in options.names or SOURCES:
        if not _write(DATA / f"model.{name}.json", render(stored(name)), check=options.check):
            stale.append(name)
    print("\n".join(f"{'stale' if options.check else 'wrote'} {name}" for name in stale))
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
