"""Writes the inference profiles (``zero_sizer/activations/data/inference.*.json``).

Usage: ``python scripts/generate_inference_profiles.py [NAME ...] [--missing]`` in an environment
that has torch and transformers. One for each structure that a bundled model has, as
``generate_family_profiles.py`` traces them for training, and one for each bundled model beyond.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

import generate_family_profiles as families

from zero_sizer.activations import inference
from zero_sizer.activations import structure as family
from zero_sizer.activations.store import write
from zero_sizer.errors import UnsupportedError
from zero_sizer.models.sources.bundled import bundled_names, load_bundled, read_bundled
from zero_sizer.tracing.inference import trace

FREE = ("qwen2",)  # heads need not fill the hidden width, though configs have no key for it
WINDOWS = (1024, 1544, 2536)  # of the members: what is as long as a window is told apart


def structures() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Structure -> what to call it, and fields of a config that has it."""
    found: dict[str, Mapping[str, Any]] = {}
    for structure, (_, fields) in families.structures().items():
        said = json.loads(structure)
        del said["drops"]
        found.setdefault(json.dumps(said, sort_keys=True), fields)
    return families.named(found)


def document(structure: str, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The profile of one structure."""
    said = json.loads(structure)
    if said["family"] in FREE:
        fields = {"head_dim": 0, **fields}
    members = []
    for number in range(3):
        member = families.resized(fields, said["kv_heads"], number)
        if said["window"]:
            member["sliding_window"] = WINDOWS[number]
        spec = families.spec_of(member)
        if inference.structure_of(spec) != structure:
            raise SystemExit(f"{name}: another structure at other widths")
        members.append((member, family.widths_of(spec)))
    realistic = [
        family.widths_of(spec)
        for spec in map(load_bundled, bundled_names())
        if spec.arch.head_dim
        and (family.window_of(spec) or not said["window"])
        and bool(spec.arch.num_experts) == said["experts"]
    ]
    window = WINDOWS[0] if said["window"] else None
    found = trace(members, name=name, realistic=realistic, window=window, report=_report)
    return {**found, "stacks": [], "setups": [], "has_free_head_dim": "head_dim" in fields}


def _report(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of files, as written; all when none")
    parser.add_argument("--missing", action="store_true", help="only those that have none")
    options = parser.parse_args()
    found = structures()
    jobs: list[tuple[str, Any]] = [
        (name, lambda s=s, n=name, f=fields: document(s, n, f))
        for s, (name, fields) in found.items()
    ]
    for name in bundled_names():
        if inference.structure_of(load_bundled(name)) not in found:
            fields = read_bundled(name)["hf_config"]
            jobs.append((name, lambda n=name, f=fields: alone(n, f)))
    for name, make in jobs:
        path = families.DATA / f"{inference.PREFIX}{name}.json"
        if (options.names and name not in options.names) or (options.missing and path.exists()):
            continue
        try:
            write(path, make())
        except UnsupportedError as error:
            print(f"{name}: {error}", flush=True)
            continue
        print(f"wrote {path.name}, {path.stat().st_size:,} bytes", flush=True)
    names = {structure: name for structure, (name, _) in found.items()}
    present = {
        s: n for s, n in names.items() if (families.DATA / f"{inference.PREFIX}{n}.json").exists()
    }
    write(families.DATA / f"{inference.PREFIX}index.json", present)
    return 0


def alone(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The profile of one model whose structure no other shares."""
    found = trace([(fields, {})], name=name, realistic=[], window=None, report=_report)
    return {**found, "polynomials": [_dense(terms) for terms in found["polynomials"]]}


def _dense(terms: list[list[int]]) -> list[int]:
    row = [0] * family.MONOMIALS
    for monomial, _, coefficient in terms:
        row[monomial] += coefficient
    return row


if __name__ == "__main__":
    sys.exit(main())
