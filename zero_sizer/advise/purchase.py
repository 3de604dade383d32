"""Memory of hosts to buy, where nobody says how much there is."""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.limits import limits_of
from zero_sizer.advise.search import Search
from zero_sizer.advise.sizes import node_counts
from zero_sizer.advise.strategy import Strategy
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.units import TIB
from zero_sizer.util.records import dataclass

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
    limits = limits_of(job.cluster, options.margin, job.workload)
    for strategy in search.usable:
        if not strategy.offloads:
            continue
        for nodes in (n for n in node_counts(most) if n & (n - 1) == 0):
            fitting = [c for c in search.smallest(strategy, nodes) if search.fits(c)]
            if not fitting:
                continue
            least = min(map(search.timed, fitting), key=_host_of)
            yield Purchase(
                strategy=strategy,
                plan=least,
                host_bytes=limits.size_for(Device.HOST, least.uses[Device.HOST]),
                nvme_bytes=limits.size_for(Device.NVME, least.uses[Device.NVME]),
            )
            break


def _host_of(plan: Candidate) -> int:
    return plan.uses[Device.HOST].num_bytes + plan.uses[Device.HOST].kept
