"""Writes the profiles of families that are fed more than tokens (``activations/data/fed.*.json``).

Usage: ``python scripts/generate_fed_profiles.py [NAME ...] [--missing] [--ways WAY ...]`` in an
environment that has torch and transformers, some minutes each. One for each structure of a bundled
model that ``models.stacked`` has a row of, and a few more (``family_members``). With ``--ways``
these ways of running alone are traced, and put into the file beside those that it has.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from family_members import AS_TORCHS, COUNTS, FURTHER, LAID_OUT_ONLY, MEMBERS, SAID, windowed
from generate_family_profiles import spec_of
from merged_profiles import merged

from zero_sizer.activations import structure as family
from zero_sizer.activations.store import write
from zero_sizer.models import stacked
from zero_sizer.models.feeds import Feed, Said, feed_of
from zero_sizer.models.feeds.records import Images
from zero_sizer.models.sources.bundled import bundled_names, read_bundled
from zero_sizer.models.spec import ModelSpec
from zero_sizer.tracing import windows
from zero_sizer.tracing.family import Member, trace_family
from zero_sizer.tracing.planes import IMAGES
from zero_sizer.tracing.products import products_of
from zero_sizer.tracing.profile import has_biases
from zero_sizer.tracing.setups import Setup

DATA = Path(__file__).parent.parent / "zero_sizer" / "activations" / "data"
_SIDES = (224, 384, 518)
_SAMPLES = (Said(), *(Said(images=Images(n, s, s)) for n, s in ((1, 448), (4, 1024), (2, 2048))))


class Structure(NamedTuple):
    """One that is traced.

    Attributes:
        key: text that models of it share.
        name: of the file.
        fields: of a config that has it.
        realistic: widths and lengths at which peaks are told apart.
    """

    key: str
    name: str
    fields: Mapping[str, Any]
    realistic: list[dict[str, int]]


def structures() -> list[Structure]:
    """Those of bundled models, and the further ones."""
    found: dict[str, Structure] = {}
    for name, fields in _configs():
        spec = spec_of(fields)
        feed = feed_of(spec)
        key = family.structure_of(spec, feed) if feed is not None else None
        if key is None:
            continue
        if key not in found:
            number = sum(s.fields["model_type"] == fields["model_type"] for s in found.values())
            called = fields["model_type"].replace("_", "-") if not number else name
            found[key] = Structure(key, called, fields, [])
        found[key].realistic.extend(_realistic(spec))
    return list(found.values())


def _configs() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in bundled_names():
        fields = read_bundled(name)["hf_config"]
        if stacked.row_of(fields) is not None:
            yield name, fields
    yield from FURTHER.items()


def _realistic(spec: ModelSpec) -> Iterator[dict[str, int]]:
    configs = [spec.hf_config]
    if "image_size" in stacked.nested_defaults().get(spec.arch.family, {}):
        configs = [{**spec.hf_config, "image_size": size} for size in _SIDES]
    for fields, said in product(configs, _SAMPLES):
        feed = feed_of(replace(spec, hf_config=fields), said)
        widths = stacked.widths_of(fields, feed) if feed is not None else None
        if widths is not None:
            yield widths


def member(fields: Mapping[str, Any], number: int) -> Member:
    """A model of the same structure at the widths of set ``number``."""
    kind = str(fields["model_type"])
    found = dict(fields)
    for key, value in MEMBERS[kind](number).items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    spec, said = spec_of(found), SAID[kind][number] if kind in SAID else Said()
    feed = feed_of(spec, said)
    widths = stacked.widths_of(found, feed) if feed is not None else None
    if feed is None or widths is None:
        raise SystemExit(f"{kind}: nothing is known of what it is fed")
    if IMAGES not in feed.measures:
        return Member(found, widths, feed)
    images = said.images or Images()
    if windows.WINDOW not in feed.measures:
        more = {n: _of(spec, Said(images=replace(images, count=n))) for n in COUNTS}
        return Member(found, widths, feed, more)
    pairs = product(COUNTS, windows.COUNTS)
    by_windows = {(n, k): _of(spec, windowed(number, n, k)) for n, k in pairs}
    return Member(found, windows.of_one(widths), feed, by_windows)


def _of(spec: ModelSpec, said: Said) -> Feed:
    feed = feed_of(spec, said)
    if feed is None:
        raise SystemExit(f"{spec.name} is fed no images")
    return feed


def document(structure: Structure, setups: list[Setup] | None = None) -> dict[str, Any]:
    """The family's profile of one structure."""
    members = [member(structure.fields, number) for number in range(3)]
    specs = [spec_of(m.fields) for m in members]
    keys = {family.structure_of(s, m.feed) for s, m in zip(specs, members, strict=True)}
    if keys != {structure.key}:
        raise SystemExit(f"{structure.name}: another structure at other widths")
    members = _with_common_tokens(members)
    row = stacked.row(structure.fields)
    measures = dict(members[0].feed.measures) if members[0].feed is not None else {}
    if members[0].more:
        measures.pop(IMAGES)
    products = products_of(row, measures)
    if windows.WINDOW in measures:
        products = windows.products_of(row, measures)
    found = trace_family(
        members,
        name=structure.name,
        realistic=structure.realistic,
        window=None,
        has_biases=structure.fields["model_type"] not in AS_TORCHS and has_biases(specs[0]),
        products=products,
        kinds_of=stacked.kinds_of(members[0].fields),
        setups=setups,
        report=lambda line: print(line, flush=True),
    )
    return {**found, "has_free_head_dim": "head_dim" in row.widths}


def _setups(ways: Iterable[str]) -> Iterator[Setup]:
    for way, on in product(ways, (False, True)):
        variant, _, attention = way.partition("/")
        yield Setup(variant=variant, attention=attention, checkpointing=on)


def _with_common_tokens(members: list[Member]) -> list[Member]:
    """All begin at the same number of tokens, that of the one whose images take most."""
    feeds = [f for m in members for f in (m.feed, *m.more.values()) if f is not None]
    fewest = max(feed.fewest for feed in feeds)
    return [
        m._replace(
            feed=m.feed and replace(m.feed, fewest=fewest),
            more={count: replace(feed, fewest=fewest) for count, feed in m.more.items()},
        )
        for m in members
    ]


def main() -> int:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of files, as written; all when none")
    parser.add_argument("--missing", action="store_true", help="only those that have none")
    parser.add_argument("--ways", nargs="+", help="to trace alone, such as fp32/sdpa")
    options = parser.parse_args()
    found = structures()
    if len({structure.name for structure in found}) < len(found):
        raise SystemExit("two structures of one name")
    for structure in found:
        if structure.fields["model_type"] in LAID_OUT_ONLY:
            continue
        path = DATA / f"{family.FED}{structure.name}.json"
        if options.names and structure.name not in options.names:
            continue
        if options.missing and path.exists():
            continue
        traced = document(structure, options.ways and [*_setups(options.ways)])
        before = [json.loads(path.read_text("utf-8"))] if options.ways and path.exists() else []
        write(path, merged([*before, traced]))
        print(f"wrote {path.name}, {path.stat().st_size:,} bytes", flush=True)
    present = {s.key: s.name for s in found if (DATA / f"{family.FED}{s.name}.json").exists()}
    write(DATA / f"{family.FED}index.json", present)
    return 0


if __name__ == "__main__":
    sys.exit(main())
