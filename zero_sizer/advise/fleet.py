"""How many nodes to ask for: the best plan of every size, the fewest that fit, the most of use."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import pairwise

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.curve import Miss, Point, meets, miss_of, points, run_of
from zero_sizer.advise.purchase import Purchase, purchases
from zero_sizer.advise.rejected import RejectedStrategy, rejection_of
from zero_sizer.advise.search import Search
from zero_sizer.advise.sizes import EVERY, Size, node_counts, size_at, sizes_at
from zero_sizer.advise.strategy import Strategy
from zero_sizer.advise.verdict import verdict_of
from zero_sizer.findings import Reason
from zero_sizer.job.goal import Goal
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.parallel import laid_out, ranks_of_each
from zero_sizer.speed.training import Training
from zero_sizer.util.records import dataclass

_PartOf = Callable[[int], Search]
"""The search on one node, by the GPUs of it that are used."""

_DAY = 86_400
WORTH_IT = 0.5
"""A node is worth adding while it brings at least this share of its part of the throughput."""


@dataclass(frozen=True, kw_only=True)
class Fewest:
    """The smallest cluster on which a strategy fits.

    Attributes:
        plan: its best plan there; None when it fits nowhere in the range.
        loss: why not, at the largest size, when ``plan`` is None.
    """

    strategy: Strategy
    plan: Candidate | None
    loss: RejectedStrategy | None = None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The answer to "how many nodes do I have to ask for?".

    Attributes:
        search: what was searched, on whole nodes.
        sizes: every number of nodes that was tried, smallest first.
        fewest: one row a strategy, simplest first.
        stops_helping: nodes beyond which a further one is not ``WORTH_IT``, told from doublings;
            None if none is.
        target: the fewest nodes that reach the wanted speed or goal; None if none does or none was
            wanted.
        verdict: of the fewest nodes, or of the target; without a plan, whether that is certain.
        reasons: what decides the verdict.
        fewest_of: ``gpus`` or ``nodes``.
        is_free: nothing fixed the train batch; every size has one of its own.
        goal: the training run that was asked about.
        wanted: tokens a second that were asked for.
        curve: one point for each size of the table that fits.
        target_run: the training run on ``target``.
        miss: what comes nearest to the goal, where nothing meets it.
        to_buy: of hosts whose memory nobody stated.
        batch_ends: ``stops_helping`` is where the train batch cannot be split further.
    """

    search: Search
    sizes: tuple[Size, ...]
    fewest: tuple[Fewest, ...]
    stops_helping: int | None
    target: Candidate | None
    verdict: Verdict
    reasons: tuple[Reason, ...]
    fewest_of: str = "gpus"
    is_free: bool = False
    goal: Goal | None = None
    wanted: float | None = None
    curve: tuple[Point, ...] = ()
    target_run: Training | None = None
    miss: Miss | None = None
    batch_ends: bool = False
    to_buy: tuple[Purchase, ...] = ()

    @property
    def is_reached(self) -> bool:
        """True if a size reaches the wanted speed or goal, or none was wanted."""
        return self.target is not None or not (self.wanted or _wants(self.goal))

    def days_of(self, size: Size) -> float | None:
        """Days of the goal's tokens at the expected speed of a size."""
        if self.goal is None or size.best is None or not size.best.tokens_per_second:
            return None
        tokens = self.goal.total_tokens(self.search.seq_len)
        return tokens / size.best.tokens_per_second / _DAY

    @property
    def smallest(self) -> Candidate | None:
        """The plan on the fewest GPUs, or nodes; the fastest of several."""
        plans = [row.plan for row in self.fewest if row.plan]
        return min(plans, key=self._size_of, default=None)

    def _size_of(self, plan: Candidate) -> tuple[int, tuple[float, int, bool, int, int]]:
        count = plan.world_size if self.fewest_of == "gpus" else plan.nodes
        return count, plan.rank_key

    @property
    def table(self) -> tuple[Size, ...]:
        """The sizes that a reader sees: doublings, the largest, the fewest that fit, the target."""
        return _table(self.sizes, [row.plan for row in self.fewest] + [self.target])


def _table(sizes: Sequence[Size], plans: Sequence[Candidate | None]) -> tuple[Size, ...]:
    shown = {plan.nodes for plan in plans if plan} | {sizes[-1].nodes}
    return tuple(s for s in sizes if s.nodes in shown or s.nodes & (s.nodes - 1) == 0)


def fleet(
    job: Job,
    options: Options | None = None,
    *,
    max_nodes: int = 64,
    tokens_per_second: float | None = None,
    fewest_of: str = "gpus",
) -> Fleet:
    """Best plans on 1 to ``max_nodes`` nodes of the job's kind.

    Args:
        job: its cluster says what a node is.
        options: margin and batch.
        max_nodes: largest size considered.
        tokens_per_second: over all GPUs; the fewest nodes that reach it are looked for. Those that
            meet ``options.goal`` are, where it says how long or dear the run may be.
        fewest_of: ``gpus``, down to a part of a node, or ``nodes``.
    """
    options = options or Options()
    search = search_of(job, options)
    sizes = tuple(sizes_at(search, node_counts(max_nodes)))
    goal, target = options.goal, None
    if tokens_per_second is not None:
        target = _first(search, sizes, lambda plan: plan.tokens_per_second >= tokens_per_second)
    elif goal is not None and _wants(goal):
        target = _first(search, sizes, meets(search, goal))
    inside = lru_cache(partial(_part_of_node, job, options)) if fewest_of == "gpus" else None
    rows = tuple(_fewest(search, strategy, sizes, inside) for strategy in search.strategies)
    shown = {size.nodes for size in _table(sizes, [row.plan for row in rows])}
    sizes = tuple(_at_one_batch(search, s) if s.nodes in shown else s for s in sizes)
    fewest = tuple(_row_at_one_batch(search, row, sizes) for row in rows)
    stops, batch_ends = _stops_helping(_table(sizes, ()))
    found = Fleet(
        search=search,
        sizes=sizes,
        fewest=fewest,
        stops_helping=stops,
        batch_ends=batch_ends,
        target=target,
        verdict=Verdict.UNCERTAIN,
        reasons=(),
        fewest_of=fewest_of,
        is_free=search.batch.is_free,
        goal=goal,
        wanted=tokens_per_second,
        to_buy=purchases(job, options, max_nodes),
        target_run=None if target is None else run_of(search, target, goal),
    )
    best = [size.best for size in found.table if size.best is not None]
    found = replace(found, curve=points(search, best, goal))
    if goal is not None and not found.is_reached:
        tried = [size.best for size in sizes if size.best is not None]
        found = replace(found, miss=miss_of(search, tried, goal))
    losses = [row.loss for row in found.fewest if row.loss]
    verdict, reasons = verdict_of(search, target or found.smallest, losses)
    if verdict is Verdict.DOES_NOT_FIT:  # nobody pays for what cannot run
        found = replace(found, curve=points(search, best, None), target_run=None, miss=None)
    return replace(found, verdict=verdict, reasons=reasons)


def _at_one_batch(search: Search, size: Size) -> Size:
    """A size with all plans at the batch of its fastest, where the batch is free."""
    if size.best is None or not search.batch.is_free:
        return size
    same = search.at_batch_of(size.best)
    found = size_at(same, size.nodes).by_strategy
    plans = {name: found.get(name, plan) for name, plan in size.by_strategy.items()}
    best = min(plans.values(), key=lambda plan: plan.rank_key)
    return replace(size, by_strategy=plans, best=best)


def _row_at_one_batch(search: Search, row: Fewest, sizes: Sequence[Size]) -> Fewest:
    """A row with the plan that its size shows, unless it is on a part of a node."""
    plan = row.plan
    if plan is None:
        return row
    same = next((size for size in sizes if size.nodes == plan.nodes), None)
    is_part = plan.world_size < plan.nodes * search.job.cluster.gpus_per_node
    if same is None or is_part:
        return row
    return replace(row, plan=search.simplest(same.by_strategy.get(row.strategy.name, plan)))


def _fewest(
    search: Search, strategy: Strategy, sizes: Sequence[Size], inside: _PartOf | None
) -> Fewest:
    """The first size that fits, refined between the sizes of the table and inside one node."""
    first = next((size for size in sizes if strategy.name in size.by_strategy), None)
    if first is None:
        part = None if inside is None else _part_that_fits(search, strategy, inside)
        if part is not None:
            return Fewest(strategy=strategy, plan=part)
        usable = [size.nodes for size in sizes if search.can_split(size.nodes)]
        loss = rejection_of(search, strategy, usable[-1] if usable else sizes[-1].nodes)
        return Fewest(strategy=strategy, plan=None, loss=loss)
    plan = first.by_strategy[strategy.name]
    if first.nodes == 1:
        if inside is not None:
            plan = _inside_node(search, strategy, plan, inside)
        return Fewest(strategy=strategy, plan=plan)
    below = max((size.nodes for size in sizes if size.nodes < first.nodes), default=0)
    return Fewest(
        strategy=strategy,
        plan=_bisect(search, below, plan, lambda nodes: search.best(strategy, nodes)),
    )


def _bisect(
    search: Search, below: int, plan: Candidate, at: Callable[[int], Candidate | None]
) -> Candidate:
    """The plan on the fewest nodes above ``below``: what fits, or is fast enough, grows with them.

    Sizes over which the train batch cannot be split are left out.
    """
    sizes = [nodes for nodes in range(below + 1, plan.nodes) if search.can_split(nodes)]
    low, high, best = 0, len(sizes), plan
    while low < high:
        middle = (low + high) // 2
        found = at(sizes[middle])
        if found is None:
            low = middle + 1
        else:
            high, best = middle, found
    return best


def _inside_node(
    search: Search, strategy: Strategy, plan: Candidate, part_of: _PartOf
) -> Candidate:
    """Half the GPUs of a node, and half again, as long as the strategy fits."""
    best, gpus = plan, search.job.cluster.gpus_per_node
    while (half := ranks_of_each(gpus, 2)) and strategy.needs_nodes == 1:
        gpus = half
        found = _best_on_part(part_of(gpus), strategy)
        if found is None:
            break
        best = found
    return best


def _part_that_fits(search: Search, strategy: Strategy, part_of: _PartOf) -> Candidate | None:
    """A plan on one GPU, where none fits on whole nodes: a rank alone needs no communicator.

    What was measured is of a whole node.
    """
    cluster = search.job.cluster
    if cluster.gpus_per_node == 1 or cluster.measured is not None or strategy.needs_nodes > 1:
        return None
    return _best_on_part(part_of(1), strategy)


def _best_on_part(part: Search, strategy: Strategy) -> Candidate | None:
    """The best plan of a strategy on a part of a node, where it has that strategy at all."""
    same = next((s for s in part.strategies if s.name == strategy.name), None)
    return part.best(same, 1) if same is not None else None


def _part_of_node(job: Job, options: Options, gpus: int) -> Search:
    """The search on one node of which the job uses ``gpus`` GPUs."""
    cluster = job.cluster.of(laid_out(gpus, gpus))
    return search_of(replace(job, cluster=cluster), options)


def _wants(goal: Goal | None) -> bool:
    """Whether a goal says how long or dear the run may be."""
    return goal is not None and (goal.target_days is not None or goal.budget is not None)


def _stops_helping(sizes: Sequence[Size]) -> tuple[int | None, bool]:
    """The last size before the next one brings less than its worth, or cannot split the batch."""
    known = [size for size in sizes if size.best is not None]
    for smaller, larger in pairwise(known):
        if smaller.best is None or larger.best is None:
            continue
        gained = larger.best.tokens_per_second / smaller.best.tokens_per_second - 1
        if gained < WORTH_IT * (larger.nodes / smaller.nodes - 1):
            return smaller.nodes, False
    if known and known[-1].nodes < sizes[-1].nodes:
        return known[-1].nodes, True
    return None, False


def _first(
    search: Search, sizes: Sequence[Size], passes: Callable[[Candidate], bool]
) -> Candidate | None:
    """The fewest nodes whose best plan passes, refined between the sizes that were tried."""
    first = next((s for s in sizes if s.best and passes(s.best)), None)
    if first is None or first.best is None:
        return None
    below = max((size.nodes for size in sizes if size.nodes < first.nodes), default=0)

    def passing(nodes: int) -> Candidate | None:
        best = size_at(search, nodes).best
        return best if best is not None and passes(best) else None

    return _bisect(search, below, first.best, passing)


def fewest_in_time(job: Job, options: Options, *, max_nodes: int = EVERY) -> Point | None:
    """The fewest nodes of the job's kind that meet a goal, found from doublings; None if none do.

    Doublings and bisection, where ``fleet`` tries every size: time falls with nodes.
    """
    goal = options.goal
    if goal is None or not _wants(goal) or not job.cluster.has_equal_nodes:
        return None
    search = search_of(job, options)
    counts = sorted({*(n for n in node_counts(max_nodes) if n & (n - 1) == 0), max_nodes})
    sizes: list[Size] = []
    test = meets(search, goal)
    for size in sizes_at(search, counts):
        sizes.append(size)
        best = size.best
        if best is not None and test(best):
            break
    target = _first(search, sizes, test)
    if target is None:
        return None
    first = next(size.best for size in sizes if size.best is not None)
    curve = [first, target] if target.nodes != first.nodes else [target]
    return points(search, curve, goal)[-1]
