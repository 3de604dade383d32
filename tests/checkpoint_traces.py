"""Traces variants of checkpointing in a process of its own, as ``profile_traces.py`` does.

    python tests/checkpoint_traces.py CASES.json

CASES: a list of ``{"model": bundled name, "depth": blocks, "at": [b, s], "variants": {name:
arguments of activation_checkpointing_enable}}``. Prints, for each variant, every section's block,
pass, peak and end, all in bytes.
"""

import json
import sys
from pathlib import Path


def case(model, depth, at, variants):
    from zero_sizer.models.profile import read_profile
    from zero_sizer.witnesses.tracing import build, fitted
    from zero_sizer.witnesses.tracing.setups import Setup, Tracer, traced

    fields = {**read_profile(model)["hf_config"], "num_hidden_layers": depth}
    config = Tracer(fields, whole=True).config
    setup, seen = Setup(variant="bf16", attention="flash", checkpointing=True), {}
    for name, arguments in variants.items():
        build.checkpoint = lambda model, a=arguments: model.activation_checkpointing_enable(**a)
        with traced(config, setup) as (trace, owners):
            seen[name] = [
                (block, is_backward, max(p[0] for s in section.steps for p in s.peaks), ends[-1])
                for block, is_backward, section in fitted.measure(trace(*at), owners).rows
                for ends in [[step.end[0] for step in section.steps]]
            ]
    return seen


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps([case(**each) for each in cases]) + "\n")


if __name__ == "__main__":
    main()
