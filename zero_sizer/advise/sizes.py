"""The best plans on each of many numbers of nodes."""

from collections.abc import Iterable, Iterator, Mapping

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.search import Search
from zero_sizer.advise.strategy import Strategy
from zero_sizer.util.records import dataclass

EVERY = 64
"""Up to so many nodes every number of them is tried; beyond, each twice the one before."""


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


class Plans(Mapping[str, Candidate]):
    """The best plan of each strategy that fits on so many nodes, looked for when asked for.

    Attributes:
        best: the fastest of all.
    """

    def __init__(self, search: Search, nodes: int, first: str = "") -> None:
        """``first`` names the strategy to try first: the faster it is the less others are tried."""
        self._search = search
        self._nodes = nodes
        self._found: dict[str, Candidate | None] = {}
        self._fits: dict[str, bool] = {}
        self.best: Candidate | None = None
        for strategy in sorted(search.strategies, key=lambda strategy: strategy.name != first):
            self._try(strategy)

    def _try(self, strategy: Strategy) -> None:
        if self.best is not None:
            fits, may_win = self._search.outlook(strategy, self._nodes, self.best)
            if not may_win:
                self._fits[strategy.name] = fits
                return
        plan = self._plan(strategy)
        self._fits[strategy.name] = plan is not None
        plans = [found for found in (self.best, plan) if found is not None]
        self.best = min(plans, key=lambda found: found.rank_key, default=None)

    def _plan(self, strategy: Strategy) -> Candidate | None:
        if strategy.name not in self._found:
            self._found[strategy.name] = self._search.best(strategy, self._nodes)
        return self._found[strategy.name]

    def __getitem__(self, name: str) -> Candidate:
        strategy = next((s for s in self._search.strategies if s.name == name), None)
        found = None if strategy is None or not self._fits[name] else self._plan(strategy)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._fits.get(name, False)

    def __iter__(self) -> Iterator[str]:
        return (name for name, fits in self._fits.items() if fits)

    def __len__(self) -> int:
        return sum(self._fits.values())


def size_at(search: Search, nodes: int, first: str = "") -> Size:
    """The best plans on so many nodes; ``first`` names the strategy that may be the fastest."""
    plans = Plans(search, nodes, first)
    return Size(nodes=nodes, best=plans.best, by_strategy=plans)


def sizes_at(search: Search, counts: Iterable[int]) -> Iterator[Size]:
    """Sizes of so many nodes each, the smallest first."""
    first = ""
    for nodes in counts:
        found = size_at(search, nodes, first)
        first = first if found.best is None else found.best.strategy.name
        yield found


def node_counts(max_nodes: int) -> tuple[int, ...]:
    """Every number up to ``EVERY``, then twice the one before, and ``max_nodes`` itself."""
    counts = list(range(1, min(max_nodes, EVERY) + 1))
    while counts[-1] < max_nodes:
        counts.append(min(2 * counts[-1], max_nodes))
    return tuple(counts)
