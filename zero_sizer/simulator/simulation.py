"""The one place that turns this process into rank r of N, and turns it back."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field

from zero_sizer.simulator import device
from zero_sizer.simulator.device import NO_LIMIT
from zero_sizer.simulator.patches import peers
from zero_sizer.simulator.tracker import Tracker
from zero_sizer.util.environment import environment
from zero_sizer.util.gc_paused import old_objects_kept
from zero_sizer.util.records import dataclass

OF_SCRIPTS = 2**12
"""Elements of the largest tensor whose values are kept for a script: flags, counts, lengths."""
OF_INPUTS = 2**18
"""The same for a model that reads its inputs: token ids of a batch, places of its patches."""


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Who to be.

    Attributes:
        rank: global rank.
        world_size: ranks of the job.
        local_world_size: ranks of a node.
        gpu_bytes: memory of a GPU.
        outside_bytes: what others take of it, least and most.
        blas_bytes: workspace that PyTorch gives cuBLAS in each thread.
        host_bytes: memory of a node; 0 where not stated.
        short_loops: shorten DeepSpeed's loops over all ranks (the same bytes, in less time).
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    gpu_bytes: int = NO_LIMIT
    outside_bytes: tuple[int, int] = (0, 0)
    blas_bytes: int = 0
    host_bytes: int = 0
    short_loops: bool = True


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A running simulation.

    Attributes:
        tracker: what is allocated, where.
        log: DeepSpeed's ``see_memory_usage`` lines so far.
        notes: what the reader must know about the figures.
    """

    tracker: Tracker
    log: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def simulated(
    rank: Rank, *, keep_events: bool = False, keep_values: int = 0
) -> Iterator[Simulation]:
    """Inside, this process is ``rank`` and every tensor is fake; outside, all is as before.

    Only the device type stays registered: torch cannot unregister one. Use it in a process of
    its own where DeepSpeed was not imported before, since DeepSpeed binds operators to the
    accelerator that it finds at import.

    Args:
        rank: who to be.
        keep_events: keep every allocation and free.
        keep_values: elements of the largest tensor whose values are kept and read back, where the
            program makes them itself; 0: none.
    """
    outside = rank.outside_bytes if rank.gpu_bytes != NO_LIMIT else ()
    room_bytes = [rank.gpu_bytes - num_bytes for num_bytes in outside]
    tracker = Tracker(keep_events=keep_events, room_bytes=room_bytes, blas_bytes=rank.blas_bytes)
    simulation = Simulation(tracker=tracker)
    variables = peers.rank_environment(
        rank=rank.rank, world_size=rank.world_size, local_world_size=rank.local_world_size
    )
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(environment(variables))
        device.register(local_world_size=rank.local_world_size)
        # From here on torch and DeepSpeed are imported; both must come after the registration.
        from zero_sizer.simulator import uncompiled

        stack.enter_context(uncompiled.uncompiled())
        from zero_sizer.simulator import answers, mode
        from zero_sizer.simulator.patches import torch as patches

        stack.enter_context(_accelerator(tracker, rank))
        from zero_sizer.simulator.operators import attention, autocast
        from zero_sizer.simulator.patches import deepspeed as engine_patches

        stack.enter_context(peers.silent_peers(rank=rank.rank, world_size=rank.world_size))
        stack.enter_context(patches.torch_patches())
        stack.enter_context(attention.fused_attention())
        stack.enter_context(autocast.registered())
        stack.enter_context(
            engine_patches.engine_patches(
                tracker,
                simulation.log,
                host_total=rank.host_bytes,
                short_loops_of_rank=rank.rank if rank.short_loops else None,
            )
        )
        mode_here = mode.SimulatedMode(tracker, answers.table(), simulation.notes)
        mode_here.keeps_values = keep_values
        stack.enter_context(mode_here)
        stack.enter_context(old_objects_kept())
        yield simulation


@contextmanager
def _accelerator(tracker: Tracker, rank: Rank) -> Iterator[None]:
    package = peers.preload_accelerator()
    from zero_sizer.simulator.accelerator import SimulatedAccelerator

    before = package.real_accelerator.ds_accelerator
    package.set_accelerator(
        SimulatedAccelerator(
            tracker,
            capacity=rank.gpu_bytes,
            local_world_size=rank.local_world_size,
        )
    )
    import deepspeed
    import deepspeed.comm

    deepspeed.accelerator = package
    try:
        yield
    finally:
        package.real_accelerator.ds_accelerator = before
