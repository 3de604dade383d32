"""Decoders whose blocks differ, beside the simulated engine: stages 0 to 3, three batches each.

    python benchmarks/mixed_decoders.py [--models NAME ...] [--write]

bf16, 8 ranks, no checkpointing, sequences of 2048 tokens, at full width, cut to the depth in the
table's first column: layers of every kind. The prediction needs no torch: it is made of the
families' profiles that are shipped. sdpa attention; gpt-oss, which has none, runs flash attention.
The rank whose GPU needs most is simulated. `--write` puts the table into benchmarks/results.md.
"""

import argparse

from cold_start import replace_section
from lora_models import LIMIT
from other_models import Case, job_of, measured

from zero_sizer import activations

CASES = (
    Case("gpt-oss-20b", (1, 2, 4), 2048, 4, "flash"),
    Case("gpt-oss-120b", (1, 2, 4), 2048, 3, "flash"),
    Case("deepseek-v2-lite", (1, 2, 4), 2048, 4),
    Case("deepseek-v3", (1, 2, 4), 2048, 4),
    Case("smollm3-3b", (1, 2, 4), 2048, 6),
    Case("gemma-3-1b", (1, 2, 4), 2048, 8),
    Case("glm-4.5-air", (1, 2, 4), 2048, 4),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[case.model for case in CASES])
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    lines, worst = [], 0.0
    for case in (case for case in CASES if case.model in options.models):
        for stage in (0, 1, 2, 3):
            jobs = {batch: job_of(case, stage, batch, case.layers) for batch in case.batches}
            model = next(iter(jobs.values())).model
            if activations.load(model) is None:
                raise SystemExit(f"{model.name} has no shipped profile")
            rows = list(measured(jobs))
            worst = max(worst, *(abs(row.error) for row in rows))
            lines.append(f"| {model.name} | {stage} | " + " | ".join(map(str, rows)) + " |")
            print(lines[-1], flush=True)
    if options.write:
        about = __doc__.split("\n\n")[2].partition(" `--write`")[0]
        head = "| model | stage | samples: simulated GiB (error) | | |\n|---|---|---|---|---|\n"
        table = head + "\n".join(lines) + "\n"
        replace_section(f"## Decoders whose blocks differ\n\n{about}\n\n{table}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
