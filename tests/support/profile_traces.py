"""Traces models in a process of its own: torch keeps a device type, once registered, for good.

    python tests/support/profile_traces.py CASES.json [CONFIG.json]

CASES: a list of ``{"fields": {...}, "points": [[b, s], ...], "setups": [[variant, attention,
checkpointing], ...]}``, and ``"shortened": false`` where no profile is wanted.
CONFIG: first traced into the user's cache, by the command for it; what it imports and learns is
then there for the cases.
Prints, for each case, the profile of the shortened model and what the whole model shows.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path


def case(fields, points, setups, shortened=True):
    from zero_sizer.tracing.encode import Encoder
    from zero_sizer.tracing.observe import observe
    from zero_sizer.tracing.setups import Setup, Tracer, traced

    whole = Tracer(fields, whole=True)
    short = Tracer(fields) if shortened else whole
    encoder = Encoder(short.stacks)
    seen = []
    for variant, attention, checkpointing in setups:
        setup = Setup(variant=variant, attention=attention, checkpointing=checkpointing)
        if shortened:
            encoder.add(setup, short.fits(setup))
        with traced(whole.subject, setup) as (trace, owners):
            for b, s in points:
                observed = asdict(observe(trace(b, s), owners))
                seen.append(
                    {"setup": [variant, attention, checkpointing], "at": [b, s], **observed}
                )
    return {"profile": encoder.document({"name": "traced", "notes": []}), "seen": seen}


def main() -> None:
    for config in sys.argv[2:]:
        from zero_sizer import cli

        assert cli.main(["models", "--profile", config]) == 0

    from zero_sizer.simulator.uncompiled import compile_nothing

    compile_nothing()  # before transformers asks torch's compiler to leave it alone
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps([case(**each) for each in cases]) + "\n")


if __name__ == "__main__":
    main()
