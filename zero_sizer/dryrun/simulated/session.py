"""``simulate``: a user's own training loop as rank r of N on GPUs that do not exist."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from zero_sizer.dryrun.recording import RankRecord, Recording
from zero_sizer.dryrun.simulated.observer import PhaseObserver
from zero_sizer.hardware import catalog, outside
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.simulator.device import NO_LIMIT
from zero_sizer.simulator.operators import trl_kernels
from zero_sizer.simulator.simulation import OF_SCRIPTS, Rank, Simulation, simulated
from zero_sizer.simulator.tracker import Event
from zero_sizer.simulator.undo import Patches
from zero_sizer.units import parse_size


class _Enough(BaseException):
    """The asked-for optimizer steps are done; not an error, and not for ``except Exception``."""


class Session:
    """Progress of a simulated script so far.

    Attributes:
        log: DeepSpeed's ``see_memory_usage`` lines.
        notes: what the reader must know about the figures.
        has_engine: whether a DeepSpeed engine was made.
        config: file or mapping that DeepSpeed read last; None before that.
        at_first_forward: called with the patches of the run once its first forward begins.
    """

    def __init__(self, simulation: Simulation, rank: Rank, steps: int | None) -> None:
        self.log = simulation.log
        self.notes = simulation.notes
        self._rank = rank
        self._steps = steps
        self._tracker = simulation.tracker
        self._observer = PhaseObserver(simulation.tracker, lambda done, name: None)
        self._observer.begin("init", step=0, micro_step=0)
        self._step = self._forwards = 0
        self._inside = False
        self.has_engine = False
        self.config: Any = None
        self.at_first_forward = [trl_kernels.install]
        self._patches = Patches()

    @property
    def events(self) -> list[Event]:
        """Every allocation and free from ``keep_events`` to the last phase's end."""
        return (self._tracker.events or [])[: self._observer.num_events]

    def keep_events(self) -> None:
        """Keep every allocation and free from now on."""
        self._tracker.events = []

    @property
    def peak(self) -> dict[str, int]:
        """Device -> most bytes in any phase so far."""
        return self._record().peak()

    def recording(self) -> Recording:
        """Every phase so far, in the form of any dry run."""
        names = ("torch", "deepspeed")
        notes = [*self.notes]
        if self._steps is not None and 0 < self._step < self._steps:
            notes.append(f"the script ended after {self._step} of {self._steps} optimizer steps")
        return Recording(
            how="simulated",
            versions={name: metadata.version(name) for name in names},
            world_size=self._rank.world_size,
            job={"script": True},
            ranks=(self._record(),),
            log=tuple(self.log),
            rooms=tuple(device.room for device in self._tracker.devices),
            notes=tuple(notes),
        )

    def _record(self) -> RankRecord:
        self._observer.extend()
        return RankRecord(rank=self._rank.rank, phases=tuple(self._observer.records))

    def follow(self, patches: Patches) -> None:
        """Phases begin and end where the engine's forward, backward and step do."""
        from deepspeed.runtime.config import DeepSpeedConfig
        from deepspeed.runtime.engine import DeepSpeedEngine

        from zero_sizer.dryrun.simulated import pipeline

        self._patches = patches
        for name in ("forward", "backward", "step"):
            patches.set(DeepSpeedEngine, name, self._timed(name, getattr(DeepSpeedEngine, name)))
        before, after = DeepSpeedEngine._backward_prologue, DeepSpeedEngine._backward_epilogue

        def prologue(engine: Any) -> None:
            if not engine._running_engine_backward:  # the script called loss.backward() itself
                self._begin("backward")
            before(engine)

        def epilogue(engine: Any) -> None:
            after(engine)
            if not engine._running_engine_backward:
                self._observer.end(engine)

        pipeline.follow(patches, self._timed)
        patches.set(DeepSpeedEngine, "__init__", self._noticed(DeepSpeedEngine.__init__))
        patches.set(DeepSpeedConfig, "__init__", self._reading(DeepSpeedConfig.__init__))
        patches.set(DeepSpeedEngine, "_backward_prologue", prologue)
        patches.set(DeepSpeedEngine, "_backward_epilogue", epilogue)

    def _noticed(self, original: Any) -> Any:
        def init(engine: Any, *args: Any, **kwargs: Any) -> None:
            self.has_engine = True
            original(engine, *args, **kwargs)

        return init

    def _reading(self, original: Any) -> Any:
        def init(parsed: Any, config: Any, *args: Any, **kwargs: Any) -> None:
            self.config = config
            original(parsed, config, *args, **kwargs)

        return init

    def _timed(self, name: str, original: Any) -> Any:
        def method(engine: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._observer.records:
                self._observer.end(engine)  # init lasts until the first forward
                self._follow_modules(engine)
                self._follow_evaluation(engine)
                for install in self.at_first_forward:  # what the script imports is there by now
                    install(self._patches)
            evaluates = name == "forward" and not engine.module.training
            if evaluates or self._inside:  # a pipeline's instruction calls the engine's own
                return original(engine, *args, **kwargs)
            self._forwards += name == "forward"
            is_pipeline = hasattr(engine, "pipe_buffers")  # whose schedule says when it steps
            boundary = name == "step" and (
                is_pipeline or engine.is_gradient_accumulation_boundary()
            )
            self._begin(name)
            self._inside = True
            try:
                result = original(engine, *args, **kwargs)
            finally:
                self._inside = False
            self._observer.end(engine)
            if boundary:
                self._count_step()
            return result

        return method

    def _follow_evaluation(self, engine: Any) -> None:
        """Forwards in evaluation mode, one after the other, are one phase and no micro step.

        Trainers call the module itself, past the engine.
        """
        open_phases: list[str] = []

        def enter(module: Any, args: Any) -> None:
            if not module.training and self._observer.records[-1].name != "evaluation":
                self._begin("evaluation")
                open_phases.append("evaluation")

        def leave(module: Any, args: Any, output: Any) -> None:
            if open_phases:
                open_phases.pop()
                self._observer.end(engine)

        engine.module.register_forward_pre_hook(enter, prepend=True)
        engine.module.register_forward_hook(leave)

    def _begin(self, name: str) -> None:
        self._observer.extend()  # a loss computed between the engine's calls, say
        micro_step = max(self._forwards - 1, 0)
        self._observer.begin(name, step=self._step, micro_step=micro_step)

    def _follow_modules(self, engine: Any) -> None:
        if self._tracker.events is not None:
            from zero_sizer.simulator import modules

            modules.follow(engine.module, self._tracker)

    def _count_step(self) -> None:
        self._step, self._forwards = self._step + 1, 0
        if self._step == self._steps:
            raise _Enough


@contextmanager
def simulate(
    *,
    nodes: int = 1,
    gpus_per_node: int = 1,
    gpu: str | None = None,
    host_memory: int | str | None = None,
    rank: int = 0,
    steps: int | None = None,
) -> Iterator[Session]:
    """Inside, ``deepspeed.initialize`` and the loop after it run on a simulated GPU.

    DeepSpeed must not be imported yet, since it binds operators to the accelerator it finds::

        with zero_sizer.simulate(nodes=4, gpus_per_node=8, gpu="h100-80gb", steps=2) as sim:
            train()
        print(sim.peak)

    Args:
        nodes: nodes of the job.
        gpus_per_node: ranks of a node.
        gpu: a name of the GPU table; without one memory has no limit.
        host_memory: of a node, in bytes or as ``2TiB``.
        rank: global rank to be.
        steps: leave the block after this many optimizer steps; None runs it to its end.

    Raises:
        InputError: an unknown GPU.
    """
    row = catalog.find(gpu) if gpu is not None else None
    who = Rank(
        rank=rank,
        world_size=nodes * gpus_per_node,
        local_world_size=gpus_per_node,
        gpu_bytes=row.visible_bytes if row is not None else NO_LIMIT,
        outside_bytes=outside.least_and_most(row, nodes * gpus_per_node),
        blas_bytes=blas_bytes(row) if row is not None else 0,
        host_bytes=parse_size(host_memory) if host_memory is not None else 0,
    )
    patches = Patches()
    with simulated(who, keep_values=OF_SCRIPTS) as simulation:
        import torch
        from deepspeed.accelerator import get_accelerator

        from zero_sizer.simulator.patches import batches, collectives, cuda

        session = Session(simulation, who, steps)
        session.follow(patches)
        batches.install(patches)
        answers = cuda.cuda_answers(
            get_accelerator(),
            name=row.name if row is not None else "simulated GPU",
            capacity=who.gpu_bytes,
            local_world_size=gpus_per_node,
            capability=row.compute_capability if row is not None else None,
        )
        patches.set(torch.distributions.Distribution, "_validate_args", False)  # of values
        try:
            with answers, collectives.scripts_collectives():
                yield session
        except _Enough:
            pass
        finally:
            patches.undo()
