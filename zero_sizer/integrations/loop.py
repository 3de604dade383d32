"""A context manager around any training loop: accelerate's, DeepSpeed's own, or plain torch.

Use it as::

    from zero_sizer.integrations.loop import watch
    with watch(model, optimizer, output="memory.json", log=accelerator.log) as memory:
        for batch in loader:
            ...
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zero_sizer.findings import Finding
from zero_sizer.integrations.keywords import checked
from zero_sizer.integrations.live_job import Run
from zero_sizer.integrations.messages import ranks
from zero_sizer.integrations.monitor import Log, Monitor

_OWN = ("model", "optimizer", "output", "log", "log_every", "resets_peaks")


@contextmanager
def watch(
    model: Any,
    optimizer: Any = None,
    *,
    output: str | Path | None = None,
    log: Log | None = None,
    log_every: int = 10,
    resets_peaks: bool = True,
    **stated: Any,
) -> Iterator[Monitor]:
    """Watches a loop: its prediction at the start, its phases, a recording at its end.

    An error of the loop passes through, and the recording says in which phase it came.

    Args:
        model: what the loop calls: a DeepSpeed engine, what ``accelerator.prepare`` returned, or a
            module.
        optimizer: torch's or accelerate's, where there is no DeepSpeed engine.
        output: where the recording goes.
        log: is handed metrics in GiB and the step, on rank 0: ``accelerator.log``, or a function.
        log_every: optimizer steps.
        resets_peaks: each phase has a peak of its own, for which
            ``torch.cuda.reset_peak_memory_stats`` is called.
        stated: flags of ``zero-sizer check`` as keywords, which win over what is seen of the run.

    Raises:
        JobError: a keyword that no prediction reads, or a value that it cannot have.
    """
    monitor = Monitor(
        output=output,
        stated=checked("watch", _OWN, stated),
        log=log,
        log_every=log_every,
        resets_peaks=resets_peaks,
    )
    begin(monitor, model, optimizer, {})
    try:
        yield monitor
    except BaseException as error:
        monitor.finish(error)
        raise
    monitor.finish()


def begin(
    monitor: Monitor,
    model: Any,
    optimizer: Any,
    loop: Mapping[str, Any],
    *,
    follows: bool = True,
    left_out: Iterable[Finding] = (),
) -> None:
    """Start a monitor on what a loop calls.

    Args:
        monitor: a fresh one.
        model: what the loop calls.
        optimizer: torch's or accelerate's.
        loop: of the workload, what the loop states.
        follows: hooks on the model and the optimizer tell of the phases.
        left_out: what the loop does that no prediction holds: said at once.
    """
    import torch

    try:
        engine = model if is_engine(model) else None
        rank, world_size, local = ranks()
        inner = getattr(optimizer, "optimizer", optimizer)
        steps = inner if isinstance(inner, torch.optim.Optimizer) else None
        if engine is not None and "optimizer" not in engine.config:
            loop = {"optim": _optim(engine), **loop}
        run = Run(
            model=model,
            config=None if engine is None else engine.config,
            rank=rank,
            world_size=world_size,
            local_world_size=local,
            loop={name: value for name, value in loop.items() if value is not None},
            left_out=tuple(left_out),
        )
    except Exception as error:
        monitor.give_up(f"{type(error).__name__}: {error}")
        return
    monitor.start(run, engine=engine)
    for finding in run.left_out:
        monitor.note(finding.message)
    if follows:
        monitor.follow(model, steps)


def is_engine(model: Any) -> bool:
    """True of a DeepSpeed engine, told by its name: DeepSpeed need not be installed."""
    return any(kind.__name__ == "DeepSpeedEngine" for kind in type(model).__mro__)


def _optim(engine: Any) -> str | None:
    """The Trainer's name for the optimizer that a loop brought; None where it has none."""
    client: Any = getattr(engine, "client_optimizer", None)
    if type(client).__name__ != "AdamW" or not type(client).__module__.startswith("torch"):
        return None
    is_fused = any(group.get("fused") for group in client.param_groups)
    return "adamw_torch_fused" if is_fused else "adamw_torch"
