"""How many nodes to ask for: the best plan of every size, the fewest that fit, the most of use."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from zero_sizer.advise.candidate import Candidate, RejectedStrategy
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.search import Search
from zero_sizer.advise.strategy import Strategy
from zero_sizer.advise.verdict import verdict_of
from zero_sizer.findings import Reason
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.parallel import laid_out, ranks_of_each
from zero_sizer.util.records import dataclass

EVERY = 64
"""Up to so many nodes every number of them is tried; beyond, each twice the one before."""

WORTH_IT = 0.5
"""A node is worth adding while it brings at least this share of its part of the throughput."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One number of nodes.

    Attributes:
        best: the fastest plan there, or None.
        by_strategy: the best plan of each strategy that fits.
    """

    nodes: int
    best: Candidate | None
    by_strategy: Mapping[str, Candidate]


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
        target: the fewest nodes that reach the wanted speed; None if none does or none was wanted.
        verdict: of the fewest nodes, or of the target; without a plan, whether that is certain.
        reasons: what decides the verdict.
        fewest_of: ``gpus`` or ``nodes``.
        is_free: nothing fixed the train batch; every size has one of its own.
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

    @property
    def smallest(self) -> Candidate | None:
        """The plan on the fewest GPUs, or nodes; the fastest of several."""
        plans = [row.plan for row in self.fewest if row.plan]
        return min(plans, key=self._size_of, default=None)

    def _size_of(self, plan: Candidate) -> tuple[int, tuple[float, int, bool, int]]:
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
        tokens_per_second: over all GPUs; the fewest nodes that reach it are looked for.
        fewest_of: ``gpus``, down to a part of a node, or ``nodes``.
    """
    options = options or Options()
    search = search_of(job, options)
    sizes = tuple(_size(search, nodes) for nodes in node_counts(max_nodes))
    target = None
    if tokens_per_second is not None:
        target = _first_fast(search, sizes, tokens_per_second)
    inside = options if fewest_of == "gpus" else None
    rows = tuple(_fewest(search, strategy, sizes, inside) for strategy in search.strategies)
    shown = {size.nodes for size in _table(sizes, [row.plan for row in rows])}
    sizes = tuple(_at_one_batch(search, s) if s.nodes in shown else s for s in sizes)
    found = Fleet(
        search=search,
        sizes=sizes,
        fewest=tuple(_row_at_one_batch(search, row, sizes) for row in rows),
        stops_helping=_stops_helping(_table(sizes, ())),
        target=target,
        verdict=Verdict.UNCERTAIN,
        reasons=(),
        fewest_of=fewest_of,
        is_free=search.batch.is_free,
    )
    losses = [row.loss for row in found.fewest if row.loss]
    verdict, reasons = verdict_of(search, target or found.smallest, losses)
    return replace(found, verdict=verdict, reasons=reasons)


def _at_one_batch(search: Search, size: Size) -> Size:
    """A size with all plans at the batch of its fastest, where the batch is free."""
    if size.best is None or not search.batch.is_free:
        return size
    same = search.at_batch_of(size.best)
    found = _size(same, size.nodes).by_strategy
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


def node_counts(max_nodes: int) -> tuple[int, ...]:
    """Every number up to ``EVERY``, then twice the one before, and ``max_nodes`` itself."""
    counts = list(range(1, min(max_nodes, EVERY) + 1))
    while counts[-1] < max_nodes:
        counts.append(min(2 * counts[-1], max_nodes))
    return tuple(counts)


def _size(search: Search, nodes: int) -> Size:
    found = {strategy.name: search.best(strategy, nodes) for strategy in search.strategies}
    plans = {name: plan for name, plan in found.items() if plan is not None}
    return Size(
        nodes=nodes,
        best=min(plans.values(), key=lambda plan: plan.rank_key, default=None),
        by_strategy=plans,
    )


def _fewest(
    search: Search, strategy: Strategy, sizes: Sequence[Size], inside: Options | None
) -> Fewest:
    """The first size that fits, refined between the sizes of the table and inside one node."""
    first = next((size for size in sizes if strategy.name in size.by_strategy), None)
    if first is None:
        usable = [size.nodes for size in sizes if search.can_split(size.nodes)]
        loss = search.loss(strategy, usable[-1] if usable else sizes[-1].nodes)
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
    search: Search, strategy: Strategy, plan: Candidate, options: Options
) -> Candidate:
    """Half the GPUs of a node, and half again, as long as the strategy fits."""
    best, gpus = plan, search.job.cluster.gpus_per_node
    while (half := ranks_of_each(gpus, 2)) and strategy.needs_nodes == 1:
        gpus = half
        part = search_of(replace(search.job, cluster=_part(search.job.cluster, gpus)), options)
        same = [s for s in part.strategies if s.name == strategy.name]
        found = part.best(same[0], 1) if same else None
        if found is None:
            break
        best = found
    return best


def _part(cluster: Cluster, gpus: int) -> Cluster:
    """One node of which a job uses ``gpus`` GPUs."""
    return cluster.of(laid_out(gpus, gpus))


def _stops_helping(sizes: Sequence[Size]) -> int | None:
    """The last size before the next one brings less than its worth."""
    known = [size for size in sizes if size.best is not None]
    for smaller, larger in pairwise(known):
        if smaller.best is None or larger.best is None:
            continue
        gained = larger.best.tokens_per_second / smaller.best.tokens_per_second - 1
        if gained < WORTH_IT * (larger.nodes / smaller.nodes - 1):
            return smaller.nodes
    if known and known[-1].nodes < sizes[-1].nodes:
        return known[-1].nodes  # beyond, the train batch cannot be split
    return None


def _first_fast(search: Search, sizes: Sequence[Size], wanted: float) -> Candidate | None:
    """The fewest nodes that are fast enough, refined between the sizes of the table."""
    first = next((s for s in sizes if s.best and s.best.tokens_per_second >= wanted), None)
    if first is None or first.best is None:
        return None
    below = max((size.nodes for size in sizes if size.nodes < first.nodes), default=0)

    def fast(nodes: int) -> Candidate | None:
        best = _size(search, nodes).best
        return best if best is not None and best.tokens_per_second >= wanted else None

    return _bisect(search, below, first.best, fast)
