"""Writes the profiles of bundled models that no family's covers (``zero_sizer/activations/data``).

Usage: ``python scripts/generate_activation_profiles.py [NAME ...] [--check] [--missing]`` in an
environment that has torch and transformers. Nothing is computed: tensors are fake.
"""

import argparse
import json
import sys
from pathlib import Path

from zero_sizer.activations.store import key_of, write
from zero_sizer.activations.structure import structure_of
from zero_sizer.models.sources.bundled import bundled_names, load_bundled, read_bundled
from zero_sizer.tracing.profile import trace_profile

DATA = Path(__file__).parent.parent / "zero_sizer" / "activations" / "data"


def keys() -> dict[str, str]:
    """Content key -> the bundled model that has it and no family."""
    specs = {name: load_bundled(name) for name in bundled_names()}
    return {key_of(spec): name for name, spec in specs.items() if structure_of(spec) is None}


def main() -> int:
    """Writes (or with ``--check`` compares) the files; 1 where one was not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all when none is named")
    parser.add_argument("--check", action="store_true", help="only say which are not current")
    parser.add_argument("--missing", action="store_true", help="only those that have none")
    options = parser.parse_args()
    known = keys()
    stale = []
    for key, name in known.items():
        if options.names and name not in options.names:
            continue
        path = DATA / f"activations.{name}.json"
        if options.missing and path.exists():
            continue
        made = trace_profile(read_bundled(name)["hf_config"], name=name, key=key)
        current = json.loads(json.dumps(made))  # tuples become lists in a file
        if not path.exists() or json.loads(path.read_text(encoding="utf-8")) != current:
            stale.append(name)
            if not options.check:
                write(path, made)
                print(f"wrote {path.name}, {path.stat().st_size:,} bytes", flush=True)
    if not options.check:
        write(DATA / "index.json", known)
    print("\n".join(f"stale {name}" for name in stale) if options.check else "done")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
