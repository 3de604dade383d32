"""The step-time model on runs that its constants were not fitted to.

    python benchmarks/cross_validation.py [--write]     the tables that docs/speed.md shows

Three constants of zero_sizer/speed/data/rates.json are fitted to measured runs: the shares that
training keeps of measured matrix products and of fused attention, and the passes of elementwise
work over GPU memory. Here they are fitted again to all runs but those of one model, of one GPU,
of one sequence length or of more than one node, and the runs left out are predicted. Everything
else in the model is a published rate or a count. Then come runs that nothing was fitted to
(benchmarks/holdout.py).
"""

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import holdout
import throughput

from zero_sizer.speed import Case
from zero_sizer.speed.model import step_time
from zero_sizer.speed.rates import table

BEGIN, END = "<!-- left out: begin -->", "<!-- left out: end -->"
# Constant of rates.json, the term that hangs on it, and whether the term's time grows with it.
FITTED = (
    ("matmul", "matrix_products", False),
    ("attention", "attention", False),
    ("elementwise_passes", "elementwise", True),
)
GROUPS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "model": lambda row: row["model"],
    "GPU": lambda row: row["gpu"],
    "sequence length": lambda row: row["seq_len"],
}
_A_NODE = 8  # GPUs
_ROUNDS = 30
_FLAT = 0.01  # relative error below which a run pulls with its square


@dataclass(frozen=True)
class Run:
    """A measured run as a linear function of the fitted constants.

    Attributes:
        row: of the data.
        seconds: of a step, measured.
        per_constant: seconds of each fitted term where its constant (or its inverse) is 1.
        rest: seconds of all else.
    """

    row: Mapping[str, Any]
    seconds: float
    per_constant: tuple[float, ...]
    rest: float

    def predicted(self, constants: Sequence[float]) -> float:
        return self.rest + sum(a * c for a, c in zip(self.per_constant, constants, strict=True))

    def error(self, constants: Sequence[float]) -> float:
        """Of the throughput, relative to what was measured."""
        return self.seconds / self.predicted(constants) - 1


def committed() -> list[float]:
    """The constants of rates.json, as factors of their terms' times."""
    values = [table()[name]["training"][Case.EXPECTED] for name, _, _ in FITTED]
    return [v if grows else 1 / v for v, (_, _, grows) in zip(values, FITTED, strict=True)]


def as_rates(constants: Sequence[float]) -> list[float]:
    """Factors of times, as rates.json has them."""
    return [c if grows else 1 / c for c, (_, _, grows) in zip(constants, FITTED, strict=True)]


def runs() -> list[Run]:
    """Every published run that constants are fitted to."""
    facts, now = throughput.read(), committed()
    found = []
    for row in facts["rows"]:
        plan, cluster = throughput.planned(throughput.timed_job_of(row, facts))
        time = step_time(plan, cluster)
        assert time is not None  # noqa: S101
        seconds = {part.term.name: part.visible_seconds for part in time.parts}
        parts = tuple(seconds[term] / c for (_, term, _), c in zip(FITTED, now, strict=True))
        rest = sum(s for name, s in seconds.items() if name not in {t for _, t, _ in FITTED})
        found.append(Run(row, time.tokens / row["tokens_per_s_per_gpu"], parts, rest))
    return found


def fit(found: Iterable[Run]) -> list[float]:
    """Constants of the least sum of absolute relative errors (reweighted least squares)."""
    rows = [
        ([a / run.seconds for a in run.per_constant], 1 - run.rest / run.seconds) for run in found
    ]
    weights, constants = [1.0] * len(rows), committed()
    for _ in range(_ROUNDS):
        size = len(FITTED)
        pulled = [(w, *row) for w, row in zip(weights, rows, strict=True)]
        matrix = [
            [sum(w * a[i] * a[j] for w, a, _ in pulled) for j in range(size)] for i in range(size)
        ]
        right = [sum(w * a[i] * b for w, a, b in pulled) for i in range(size)]
        constants = _solve(matrix, right)
        misses = [sum(x * c for x, c in zip(a, constants, strict=True)) - b for _, a, b in pulled]
        weights = [1 / max(abs(miss), _FLAT) for miss in misses]
    return constants


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss, with pivots from the diagonal: normal equations are positive definite."""
    rows = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for i, pivot in enumerate(rows):
        pivot[:] = [value / pivot[i] for value in pivot]
        for j, line in enumerate(rows):
            if j != i:
                line[:] = [a - line[i] * b for a, b in zip(line, pivot, strict=True)]
    return [line[-1] for line in rows]


def left_out(
    found: Sequence[Run], key: Callable[[Mapping[str, Any]], Any]
) -> dict[Any, list[float]]:
    """Errors of each group's runs with constants fitted to all others."""
    groups: dict[Any, list[Run]] = {}
    for run in found:
        groups.setdefault(key(run.row), []).append(run)
    return {
        name: [run.error(constants) for run in group]
        for name, group in sorted(groups.items())
        for constants in [fit(run for run in found if key(run.row) != name)]
    }


def summary(errors: Sequence[float]) -> tuple[float, float, float]:
    """Median and 90th percentile of the absolute errors, and the worst."""
    sizes = sorted(map(abs, errors))
    ninth = (
        statistics.quantiles(sizes, n=10, method="inclusive")[-1] if len(sizes) > 1 else sizes[0]
    )
    return statistics.median(sizes), ninth, max(errors, key=abs)


def table_of(found: Sequence[Run]) -> str:
    """Markdown: each kind of group left out in turn, then each model and GPU by itself."""
    lines = ["| left out in turn | runs | median error | 90th percentile | worst |"]
    lines += ["|---|---|---|---|---|"]
    lines.append(_line("nothing (fitted to all)", [run.error(fit(found)) for run in found]))
    details = []
    for name, key in GROUPS.items():
        errors = left_out(found, key)
        lines.append(_line(f"each {name}", [e for group in errors.values() for e in group]))
        if name in ("model", "GPU"):
            details += [_line(str(group), errors[group]) for group in errors]
    inside = fit(run for run in found if run.row["gpus"] <= _A_NODE)
    beyond = [run.error(inside) for run in found if run.row["gpus"] > _A_NODE]
    lines.append(_line("all beyond one node", beyond))
    lines += ["", "| left out | runs | median error | 90th percentile | worst |"]
    lines += ["|---|---|---|---|---|", *details]
    return "\n".join(lines)


def _line(name: str, errors: Sequence[float]) -> str:
    median, ninth, worst = summary(errors)
    return f"| {name} | {len(errors)} | {median:.1%} | {ninth:.1%} | {worst:+.1%} |"


def whole_text() -> str:
    """What docs/speed.md shows."""
    others = holdout.table_of(holdout.results(), holdout.results(is_stated=True))
    return f"{table_of(runs())}\n\n{others}"


def main() -> None:
    text = whole_text()
    print(text)
    print("fitted to all:", [round(value, 3) for value in as_rates(fit(runs()))])
    if "--write" in sys.argv:
        before, _, rest = throughput.DOC.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        throughput.DOC.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
