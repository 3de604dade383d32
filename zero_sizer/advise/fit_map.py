"""Map of what fits: micro batches against numbers of nodes, all else as it was stated."""

from dataclasses import replace

from zero_sizer.advise.batch import with_batch
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import Sizing, size
from zero_sizer.util.records import dataclass

_BATCHES = (1, 2, 4, 8, 16, 32)
_NODES = tuple(2**power for power in range(20))
_SHOWN = 5  # columns


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Verdict on one micro batch on one number of nodes.

    Attributes:
        verdict: of ``check``.
        num_bytes: expected of a GPU, everything outside of PyTorch included.
        device: that is short of most where it does not fit; empty elsewhere.
    """

    verdict: Verdict
    num_bytes: int
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class FitMap:
    """Verdicts by micro batch and number of nodes.

    Attributes:
        micro_batches: samples of a GPU and micro step, one row each.
        nodes: one column each.
        rows: cells by row and column; None where such a job cannot be planned.
        own: row and column of the job itself.
    """

    micro_batches: tuple[int, ...]
    nodes: tuple[int, ...]
    rows: tuple[tuple[Cell | None, ...], ...]
    own: tuple[int, int]


def fit_map_of(sizing: Sizing) -> FitMap | None:
    """The map around a job; None where the job itself cannot be planned.

    The batch of a step grows with both: gradient accumulation stays as it is.
    """
    job, plan = sizing.job, sizing.plan
    if plan is None:
        return None
    own = plan.micro_batch, job.cluster.nodes
    batches = tuple(sorted({*_BATCHES, own[0]}))
    nodes = tuple(sorted({*_around(own[1]), own[1]})) if job.cluster.has_equal_nodes else (own[1],)
    rows = tuple(
        tuple(
            _cell(sizing) if own == (batch, count) else _at(job, batch, plan.grad_accum, count)
            for count in nodes
        )
        for batch in batches
    )
    return FitMap(
        micro_batches=batches,
        nodes=nodes,
        rows=rows,
        own=(batches.index(own[0]), nodes.index(own[1])),
    )


def _around(nodes: int) -> tuple[int, ...]:
    """Powers of two, on either side of the job's own number."""
    below = sum(count < nodes for count in _NODES)
    first = max(below - _SHOWN // 2, 0)
    return _NODES[first : first + _SHOWN]


def _at(job: Job, batch: int, grad_accum: int, nodes: int) -> Cell | None:
    cluster = replace(job.cluster, nodes=nodes)
    sizing = size(replace(with_batch(job, batch, grad_accum), cluster=cluster))
    return None if sizing.plan is None else _cell(sizing)


def _cell(sizing: Sizing) -> Cell:
    short = max(Device, key=sizing.shortfall)
    return Cell(
        verdict=sizing.verdict,
        num_bytes=sizing.needs[Device.GPU].expected,
        device=short.value if sizing.shortfall(short) else "",
    )
