"""The search against a grid: random problems, random settings of every knob, every micro batch.

For each problem the grid draws settings from lists that are wider than those of ``choose`` and
finds the largest micro batch of each by bisection. Then: a plan is found whenever the grid has
one; the winner is at most 1 % slower than the grid's fastest at its own batch; no strategy is said
not to fit of which the grid has a plan; ``size`` needs no more nodes than the grid; the largest
micro batch is the largest that ``check`` calls a fit.

python benchmarks/search.py --problems 60 --seed 1     # prints the table
python benchmarks/search.py --write                    # and puts it into benchmarks/results.md
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cold_start import machine, replace_section
from search_problems import GPUS, MODELS, Problem, problems

from zero_sizer import sizing
from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Choice, Options, choose, search_of
from zero_sizer.advise.fleet import fleet
from zero_sizer.advise.ladder import Tuning, setting
from zero_sizer.advise.largest import largest_of
from zero_sizer.advise.search import Search
from zero_sizer.advise.strategy import Strategy, smallest_swap_buffer
from zero_sizer.ledger.verdict import Verdict

TOLERANCE = 1.01
GRID = {
    "overlap_comm": (True, True, False),
    "reduce_bucket_size": (500_000_000, 200_000_000, 100_000_000, 50_000_000, 20_000_000),
    "stage3_prefetch_bucket_size": (50_000_000, 10_000_000, 0),
    "stage3_max_live_parameters": (
        *(1_000_000_000, 300_000_000, 100_000_000, 0),
        *(4_000_000_000, 10_000_000_000, 200_000_000_000),
    ),
    "stage3_max_reuse_distance": (
        *(1_000_000_000, 100_000_000, 0),
        *(4_000_000_000, 10_000_000_000, 200_000_000_000),
    ),
    "stage3_param_persistence_threshold": (1_000_000, 100_000, 0),
    "sub_group_size": (1_000_000_000, 300_000_000, 100_000_000, 50_000_000, 25_000_000),
}
OFFLOADED = {
    "offload_optimizer.pin_memory": (True, False),
    "offload_param.pin_memory": (True, False),
    "offload_optimizer.ratio": (1.0, 1.0, 0.7, 0.4, 0.2),
    "offload_optimizer.buffer_count": (4, 5, 8),
}
SWAP_BUFFERS = (100_000_000, 400_000_000)  # elements, where they take the largest weight
EVERY = (2, 3, 4, 8)  # of so many blocks one is checkpointed
ONE_AT_A_TIME = {  # a swapped weight holds one of few buffers: see advise/ladder.py
    "stage3_prefetch_bucket_size": 0,
    "stage3_max_live_parameters": 100_000_000,
    "stage3_max_reuse_distance": 0,
}
FRUGAL = {
    "overlap_comm": False,
    "reduce_bucket_size": 20_000_000,
    **ONE_AT_A_TIME,
    "stage3_param_persistence_threshold": 0,
    "sub_group_size": 25_000_000,
    "offload_optimizer.pin_memory": False,
    "offload_param.pin_memory": False,
}


@dataclass
class Grid:
    """Random settings of every strategy on one problem."""

    search: Search
    nodes: int
    draw: random.Random
    count: int
    tried: int = 0

    def settings(self, strategy: Strategy) -> Iterator[Tuning]:
        """The frugal end, DeepSpeed's defaults, and ``count`` drawn ones."""
        known = [key for key in (*GRID, *OFFLOADED) if _applies(key, strategy)]
        fixed = ONE_AT_A_TIME if strategy.weights_on == "nvme" else {}
        least = smallest_swap_buffer(self.search.job)
        buffers = [least, *(size for size in SWAP_BUFFERS if size > least)]
        yield setting({key: FRUGAL[key] for key in known if key in FRUGAL})
        yield setting(fixed)
        lists = {**GRID, **OFFLOADED}
        for _ in range(self.count if known else 0):
            drawn = {key: self.draw.choice(lists[key]) for key in known}
            if drawn.get("offload_optimizer.ratio") == 1.0:
                del drawn["offload_optimizer.ratio"]
            if fixed:
                drawn["offload_param.buffer_size"] = self.draw.choice(buffers)
            yield setting({**drawn, **fixed})

    def plans(self, strategy: Strategy) -> Iterator[Candidate]:
        """The plan of each setting with the largest micro batch that fits."""
        sizes = self.search.batch.choices(self.nodes * self.search.job.cluster.gpus_per_node)
        for found in self.settings(strategy):
            for every in (0, 1, self.draw.choice(EVERY)):
                plan = self._largest(strategy, found, every, sizes)
                if plan is not None:
                    yield self.search.timed(plan)

    def _largest(
        self,
        strategy: Strategy,
        found: Tuning,
        every: int,
        sizes: Sequence[tuple[int, int]],
    ) -> Candidate | None:
        low, high, step = -1, len(sizes), 1
        best = None
        while low + 1 < high:
            middle = min(low + step, high - 1) if step else (low + high) // 2
            plan = Candidate(
                strategy=strategy,
                setting=found,
                checkpointing=bool(every),
                every=every or 1,
                micro_batch=sizes[middle][0],
                grad_accum=sizes[middle][1],
                nodes=self.nodes,
                world_size=self.nodes * self.search.job.cluster.gpus_per_node,
                seconds=0.0,
                tokens=0,
                uses={},
            )
            self.tried += 1
            if self.search.fits(plan):
                low, step, best = middle, 2 * step, plan
            else:
                high, step = middle, 0
        return best


def _applies(key: str, strategy: Strategy) -> bool:
    section, _, name = key.rpartition(".")
    if section:
        if name == "ratio":
            return strategy.stage == 3 and strategy.optimizer_on == "cpu"
        if name == "buffer_count":
            return strategy.optimizer_on == "nvme"
        return bool(strategy.zero.get(section))
    if key in ("reduce_bucket_size", "overlap_comm"):
        return strategy.stage > 0
    return strategy.stage == 3


@dataclass(frozen=True)
class Draw:
    """Where randomness comes from, and how many settings of a strategy."""

    random: random.Random
    count: int


@dataclass
class Outcome:
    """What was found, by kind, with the problems that fell short."""

    counts: Counter[str] = field(default_factory=Counter)
    worst: float = 1.0
    tried: int = 0
    problems: int = 0
    failures: list[str] = field(default_factory=list)

    def note(self, kind: str, problem: Problem, *, is_good: bool, words: str = "") -> None:
        """Count one comparison."""
        self.counts[kind] += 1
        if not is_good:
            self.failures.append(f"{kind}: {problem.line}: {words}")


def compare(problem: Problem, outcome: Outcome, draw: random.Random, count: int) -> None:
    """One problem against its grid."""
    wanted = problem.job()
    choice = choose(wanted)
    if choice.winner is None:
        _nothing(problem, outcome, Draw(draw, count))
    else:
        _fastest(problem, choice, choice.winner, outcome, Draw(draw, count))
        _largest(problem, choice, outcome, Draw(draw, count))
    _fewest(problem, outcome, Draw(draw, count))


def _nothing(problem: Problem, outcome: Outcome, draw: Draw) -> None:
    search = search_of(problem.job(), Options(margin=0.0))
    grid = Grid(search, problem.nodes, draw.random, 4 * draw.count)
    usable = _usable(grid.search, problem.nodes)
    found = next((plan for strategy in usable for plan in grid.plans(strategy)), None)
    outcome.tried += grid.tried
    words = "" if found is None else f"{found.strategy.name}, {found.setting.name}"
    outcome.note("nothing fits", problem, is_good=found is None, words=words)


def _fastest(
    problem: Problem, choice: Choice, winner: Candidate, outcome: Outcome, draw: Draw
) -> None:
    sized = sizing.size(choice.search.job_of(winner))
    is_good = sized.verdict is choice.verdict is Verdict.FITS
    words = f"{sized.verdict.value}: {[reason.code for reason in sized.reasons]}"
    outcome.note("check agrees", problem, is_good=is_good, words=words)
    grid = Grid(choice.search, problem.nodes, draw.random, draw.count)
    fastest, lost = None, {loss.strategy.name for loss in choice.losses}
    for strategy in _usable(grid.search, problem.nodes):
        plans = list(grid.plans(strategy))
        if strategy.name in lost:
            words = f"{strategy.name}: {plans[0].setting.name}" if plans else ""
            outcome.note("said not to fit", problem, is_good=not plans, words=words)
        fastest = min([*plans, *([fastest] if fastest else [])], key=_time, default=None)
    outcome.tried += grid.tried
    if fastest is not None:
        over = winner.seconds_per_token / fastest.seconds_per_token
        outcome.worst = max(outcome.worst, over)
        words = f"{over:.3f}x {winner.strategy.name} against {fastest.strategy.name} "
        words += f"({fastest.micro_batch} x {fastest.grad_accum}, {fastest.checkpointed} "
        words += f"checkpointed, {fastest.setting.name})"
        outcome.note("fastest", problem, is_good=over <= TOLERANCE, words=words)


def _largest(problem: Problem, choice: Choice, outcome: Outcome, draw: Draw) -> None:
    """No plan of the grid takes one sample more, as ``check`` sees it."""
    if choice.flags:
        return  # another loss, or another checkpointing, than the grid's
    found = largest_of(problem.job(), "micro-batch")
    if not isinstance(found.value, int):
        outcome.note("largest", problem, is_good=False, words="none")
        return
    more = found.value + 1
    one_more = Options(margin=0.0, train_batch=more * problem.nodes * problem.gpus)
    wanted = replace(problem.job(), workload=replace(problem.job().workload, micro_batch=more))
    grid = Grid(search_of(wanted, one_more), problem.nodes, draw.random, draw.count)
    larger = next(
        (
            plan
            for strategy in _usable(grid.search, problem.nodes)
            for plan in grid.plans(strategy)
            if sizing.size(grid.search.job_of(plan)).verdict is Verdict.FITS
        ),
        None,
    )
    outcome.tried += grid.tried
    is_edge = found.beyond is None or found.beyond[1] is not Verdict.FITS
    words = "" if larger is None else f"{found.value}, grid {larger.setting.name}"
    outcome.note("largest", problem, is_good=is_edge and larger is None, words=words)


def _fewest(problem: Problem, outcome: Outcome, draw: Draw) -> None:
    most = 8
    found = fleet(replace(problem, nodes=1).job(), max_nodes=most).smallest
    needed = most + 1 if found is None else found.nodes
    if needed == 1:
        return
    grid = Grid(search_of(problem.job(), Options()), needed - 1, draw.random, draw.count)
    usable = _usable(grid.search, needed - 1)
    plan = next((plan for strategy in usable for plan in grid.plans(strategy)), None)
    outcome.tried += grid.tried
    words = "" if plan is None else f"{needed} nodes, grid: {plan.strategy.name} on {needed - 1}"
    outcome.note("fewest nodes", problem, is_good=plan is None, words=words)


def _usable(search: Search, nodes: int) -> list[Strategy]:
    return [s for s in search.usable if nodes >= s.needs_nodes]


def _time(plan: Candidate) -> float:
    return plan.seconds_per_token


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings", type=int, default=40, help="drawn of every strategy")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of problems; draws differ")
    parser.add_argument("--minutes", type=float, help="begin no problem after so many")
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    outcome, begun = Outcome(), time.monotonic()
    start = time.process_time()
    draw = random.Random(options.seed)
    for number, problem in zip(range(options.problems), problems(options.seed), strict=False):
        if options.minutes and time.monotonic() - begun > 60 * options.minutes:
            break
        if options.only and number not in options.only:
            continue
        before = len(outcome.failures)
        outcome.problems += 1
        compare(problem, outcome, draw, options.settings)
        for line in outcome.failures[before:]:
            print(f"{number}: {line}", flush=True)
    section = render(outcome, options, time.process_time() - start)
    print(section)
    if options.write:
        replace_section(section)
    return int(bool(outcome.failures))


SAYS = {
    "nothing fits": "said of a problem, and the grid has no plan that `check` calls a fit",
    "check agrees": "that the plan which is chosen fits",
    "fastest": "the winner is at most 1 % slower than the grid's fastest at its batch",
    "said not to fit": "of a strategy, and the grid has no plan of it",
    "fewest nodes": "and the grid has no plan on one node less",
    "largest": "micro batch is one that `check` calls a fit, and the grid has none one larger",
}


def render(outcome: Outcome, options: argparse.Namespace, seconds: float) -> str:
    failed = Counter(line.partition(":")[0] for line in outcome.failures)
    rows = [
        f"| {kind} | {about} | {outcome.counts[kind] - failed[kind]} of {outcome.counts[kind]} |"
        for kind, about in SAYS.items()
        if outcome.counts[kind]
    ]
    return "\n".join(
        [
            "## Search",
            "",
            f"{outcome.problems} problems drawn with seed {options.seed} ({len(MODELS)} models of "
            f"0.5B to 70B, {len(GPUS)} cards, 1 to 16 GPUs, 32 GiB to 1 TiB, NVMe or none, 512 to "
            f"8192 tokens) against {outcome.tried:,} plans of a random grid, by "
            f"`benchmarks/search.py`: {options.settings} settings of every strategy, checkpointed "
            "or not, with the largest micro batch that fits.",
            "",
            "| question | answer | holds |",
            "|---|---|---|",
            *rows,
            "",
            f"The slowest winner took {outcome.worst:.3f} of the grid's best time. {seconds:.0f} s "
            f"of the processor. {machine()}",
            "",
            *(f"* {line}" for line in outcome.failures),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
