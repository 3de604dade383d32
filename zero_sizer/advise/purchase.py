"""Memory of hosts to buy, where nobody says how much there is."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.limits import MARGINS
from zero_sizer.advise.search import Search
from zero_sizer.advise.sizes import node_counts
from zero_sizer.advise.strategy import Strategy
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.capacity import capacities
from zero_sizer.units import TIB
from zero_sizer.util.records import dataclass

_ROUNDS = 8  # a host's own share is a sixty-fourth: they end at the byte
_ANY = 1024 * TIB  # of a host or its drives: more than any has


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """The least of host memory and NVMe with which a strategy fits on the fewest nodes.

    Attributes:
        strategy: one that offloads.
        plan: on those nodes, the one that needs least of the host.
        host_bytes: of each node, the usual margin and the processes included.
        nvme_bytes: of each node, likewise; 0 where it uses none.
    """

    strategy: Strategy
    plan: Candidate
    host_bytes: int
    nvme_bytes: int


def purchases(job: Job, options: Options, max_nodes: int) -> tuple[Purchase, ...]:
    """Hosts for each strategy that offloads, simplest first.

    Empty where host memory is stated, or where no GPU is large enough for any of them.
    """
    if job.cluster.host_memory is not None:
        return ()
    endless = replace(job.cluster, host_memory=_ANY, nvme=job.cluster.nvme or _ANY)
    search = search_of(replace(job, cluster=endless), options)
    return tuple(_purchases(job, search, options, max_nodes))


def _purchases(job: Job, search: Search, options: Options, most: int) -> Iterator[Purchase]:
    margins = MARGINS if options.margin is None else dict.fromkeys(Device, options.margin)
    for strategy in search.usable:
        if not strategy.offloads:
            continue
        for nodes in (n for n in node_counts(most) if n & (n - 1) == 0):
            fitting = [c for c in search.smallest(strategy, nodes) if search.fits(c)]
            if not fitting:
                continue
            least = min(map(search.timed, fitting), key=_host_of)
            nvme = least.uses[Device.NVME].num_bytes
            yield Purchase(
                strategy=strategy,
                plan=least,
                host_bytes=_host_for(job, least, margins[Device.HOST]),
                nvme_bytes=_with_margin(nvme, margins[Device.NVME]),
            )
            break


def _host_for(job: Job, plan: Candidate, margin: float) -> int:
    """The smallest host that takes a plan; a larger one needs more itself, for its pages."""
    use, size = plan.uses[Device.HOST], 0
    for _ in range(_ROUNDS):
        cluster = replace(job.cluster, host_memory=size)
        outside = capacities(cluster, job.workload)[Device.HOST].outside.high
        live = use.num_bytes + outside
        size = max(live + use.kept, _with_margin(live, margin))
    return size


def _with_margin(num_bytes: int, margin: float) -> int:
    """Size of a device of which that is all but the margin, rounded up."""
    return ceil(num_bytes / (1 - margin)) + 1 if num_bytes else 0


def _host_of(plan: Candidate) -> int:
    return plan.uses[Device.HOST].num_bytes + plan.uses[Device.HOST].kept
