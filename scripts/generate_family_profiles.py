"""Writes the profiles of families (``zero_sizer/activations/data/family.*.json``).

Usage: ``python scripts/generate_family_profiles.py [STRUCTURE ...] [--missing]`` in an environment
that has torch and transformers. One for each structure that a bundled model has, and a few more;
called after what tells the structure apart (``llama-gqa-tied-silu``), and traced at three sets of
widths that no two products share.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mixed_members as mixed

from zero_sizer import models
from zero_sizer.activations import kinds
from zero_sizer.activations import structure as family
from zero_sizer.activations.store import write
from zero_sizer.models.sources.bundled import bundled_names, load_bundled, read_bundled
from zero_sizer.models.spec import ModelSpec
from zero_sizer.tracing.family import Member, trace_family
from zero_sizer.tracing.profile import has_biases
from zero_sizer.tracing.widths import PRODUCTS

DATA = Path(__file__).parent.parent / "zero_sizer" / "activations" / "data"
LAYERS = 8  # enough for every pattern of layers
_KEYS = {
    "hidden": ("hidden_size", "n_embd", "word_embed_proj_dim", "d_model"),
    "ffn": (
        "intermediate_size",
        "ffn_dim",
        "n_inner",
        "ffn_hidden_size",
        "d_ff",
        "shared_intermediate_size",
    ),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "d_kv"),
    "vocab": ("vocab_size",),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"),
    "experts": ("num_local_experts", "num_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_ffn": ("moe_intermediate_size",),
}
_POSITIONS = ("n_positions", "max_position_embeddings")
_HEADS = {"all": ((7, 7), (11, 11), (13, 13)), "one": ((6, 1), (10, 1), (14, 1)),
          "some": ((6, 2), (15, 3), (10, 5))}  # fmt: skip
_OTHERS = (
    {"head_dim": 40, "ffn": 592, "vocab": 1016, "experts": 8, "experts_per_token": 3,
     "expert_ffn": 272, "positions": 1024},
    {"head_dim": 80, "ffn": 1072, "vocab": 1528, "experts": 20, "experts_per_token": 2,
     "expert_ffn": 464, "positions": 1536},
    {"head_dim": 200, "ffn": 1328, "vocab": 2024, "experts": 12, "experts_per_token": 4,
     "expert_ffn": 656, "positions": 3072},
)  # fmt: skip
# Structures of well-known models that are not bundled.
_DROPS_NOTHING = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
_DROPS_SOME = {"attention_dropout": 0.1, "embedding_dropout": 0.1, "residual_dropout": 0.1}
_FURTHER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gpt2-without-dropout": ("gpt2", _DROPS_NOTHING),
    # with torch's own GELU, as MPT and most trained from scratch have it
    "gpt2-of-one-gelu": ("gpt2", {**_DROPS_NOTHING, "activation_function": "gelu"}),
    "qwen1.5-7b": ("qwen2.5-14b", {"num_key_value_heads": 40}),
    "phi-2-of-the-hub": ("phi-2", {"partial_rotary_factor": 0.4}),
    "phi-3-medium": ("phi-3-mini", {"num_key_value_heads": 8}),
    "phi-4-mini": ("phi-4", {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
    "galactica-30b": ("opt-1.3b", {"activation_function": "gelu"}),
    "qwen1.5-0.5b": ("qwen2.5-0.5b", {"num_key_value_heads": 14}),
    "starcoder2-15b": ("starcoder2-3b", {"tie_word_embeddings": False, **_DROPS_SOME}),
    "starcoder2-of-the-hub": ("starcoder2-3b", _DROPS_SOME),
    "falcon-40b": ("falcon-7b", {"new_decoder_architecture": True, "num_kv_heads": 8}),
}
_PER_HEAD = (56, 48, 72)  # of the hidden size, where head_dim is free
_KV_HEADS = {"all": "mha", "some": "gqa", "one": "mqa"}


def name_of(structure: str) -> str:
    """What files of a structure are called: what tells it from others of its family."""
    said = json.loads(structure)
    is_tied = not any("lm_head" in name or "embed_out" in name for name in said["names"])
    rotated = said["rotated"]
    words = (
        said["family"],
        *_words_of_kinds(said),
        "unbiased"
        if (said["family"], said["words"].get("attention_bias")) == ("glm4", False)
        else "",
        _KV_HEADS[said["kv_heads"]],
        "tied" if is_tied else "",
        "windowed" if said["window"] else "",
        said["activation"] or said["words"].get("feed_forward_proj", ""),
        "dropout" if said.get("drops") else "",
        f"rotated-{rotated:g}" if rotated != 1.0 else "",
    )
    return "-".join(word.replace("_", "-") for word in words if word)


def _words_of_kinds(said: Mapping[str, Any]) -> list[str]:
    """What tells structures of a family apart whose blocks differ."""
    if said["family"] not in kinds.FAMILIES:
        return []
    names = {name for _, of_kind in said["layers"] for name in of_kind}
    dense = any(name.startswith("feed_forward.gate_proj") for name in names)
    words = {
        "latent-queries": any("q_a_proj" in name for name in names),
        "in-groups": said["words"].get("topk_method") == "group_limited_greedy",
        "normed": bool(said["words"].get("use_qk_norm")),
        "interleaved": said["family"] == "llama4_text" and dense,
    }
    return [word for word, holds in words.items() if holds]


def structures() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Structure -> what to call it, and fields of a config that has it."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in bundled_names():
        structure = family.structure_of(load_bundled(name))
        if structure is not None:
            found.setdefault(structure, read_bundled(name)["hf_config"])
    further = {n: {**read_bundled(b)["hf_config"], **more} for n, (b, more) in _FURTHER.items()}
    for name, fields in (*further.items(), *mixed.further()):
        structure = family.structure_of(spec_of(fields))
        if structure is None:
            raise SystemExit(f"{name} has no structure")
        found.setdefault(structure, fields)
    return named(found)


def named(found: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Structures with what to call them; it stops where two would share a name."""
    names = {structure: name_of(structure) for structure in found}
    if len(set(names.values())) < len(names):
        raise SystemExit(f"name_of() does not tell all structures apart: {sorted(names.values())}")
    return {structure: (names[structure], fields) for structure, fields in found.items()}


def resized(fields: Mapping[str, Any], kind: str, number: int) -> dict[str, Any]:
    """A config of the same structure at the widths of set ``number``."""
    heads, kv_heads = _HEADS[kind][number]
    if fields["model_type"] == "bloom":
        heads = kv_heads = 4 * 2**number  # slopes of other numbers are made in two parts
    widths = {**_OTHERS[number], "heads": heads, "kv_heads": kv_heads, "layers": LAYERS}
    widths["hidden"] = heads * (_PER_HEAD[number] if _is_free(fields) else widths["head_dim"])
    has_table = fields["model_type"] in family.LEARNED_POSITIONS
    keys = {**_KEYS, "positions": _POSITIONS} if has_table else _KEYS
    changes = {
        key: widths[width]
        for width, named in keys.items()
        for key in named
        if fields.get(key, 0) != 0  # no experts are none at any width
    }
    if fields["model_type"] in ("glm4", "phi3"):
        changes["pad_token_id"] = 0  # its default lies in its own vocabulary only
    if fields["model_type"] == "granitemoehybrid":
        changes["mamba_n_heads"] = heads  # of blocks that there are none of, and yet checked
        changes["layer_types"] = fields["layer_types"][:LAYERS]
    return {**fields, **changes}


def _is_free(fields: Mapping[str, Any]) -> bool:
    """Whether heads need not fill the hidden size."""
    return any(key in fields for key in _KEYS["head_dim"])


def spec_of(fields: Mapping[str, Any]) -> ModelSpec:
    """The model of a config's fields."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(dict(fields)), encoding="utf-8")
        return models.load(str(path))


def document(structure: str, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The family's profile of one structure."""
    said = json.loads(structure)
    is_mixed = mixed.is_mixed(fields)
    members = []
    for number in range(mixed.SETS if is_mixed else len(_OTHERS)):
        member = (mixed.resized if is_mixed else resized)(fields, said["kv_heads"], number)
        spec = spec_of(member)
        if family.structure_of(spec) != structure:
            raise SystemExit(f"{name}: another structure at other widths")
        members.append(Member(member, family.widths_of(spec)))
    realistic = [
        family.widths_of(spec)
        for spec in map(load_bundled, bundled_names())
        if spec.arch.head_dim and bool(spec.arch.num_experts) == said["experts"]
    ]
    if is_mixed:
        realistic = [
            *mixed.realistic(family.widths_of(spec_of(fields))),
            *(m.widths for m in members),
        ]
    found = trace_family(
        members,
        name=name,
        realistic=realistic,
        window=family.window_of(spec) if said["window"] else None,
        has_biases=has_biases(spec),
        kinds=kinds.kinds_of(spec).row if is_mixed else (),
        products=mixed.products(fields) if is_mixed else PRODUCTS,
        report=lambda line: print(line, flush=True),
    )
    return {**found, "has_free_head_dim": _is_free(fields) or "kv_lora_rank" in fields}


def main() -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of files, as written; all when none")
    parser.add_argument("--missing", action="store_true", help="only those that have none")
    options = parser.parse_args()
    found = structures()
    for structure, (name, fields) in found.items():
        path = DATA / f"{family.PREFIX}{name}.json"
        if (options.names and name not in options.names) or (options.missing and path.exists()):
            continue
        write(path, document(structure, name, fields))
        print(f"wrote {path.name}, {path.stat().st_size:,} bytes", flush=True)
    names = {structure: name for structure, (name, _) in found.items()}
    present = {s: n for s, n in names.items() if (DATA / f"{family.PREFIX}{n}.json").exists()}
    write(DATA / f"{family.PREFIX}index.json", present)
    return 0


if __name__ == "__main__":
    sys.exit(main())
