"""A callback of Lightning's Trainer, for either of its packages.

Use it as::

    from zero_sizer.integrations.lightning import MemoryCallback
    trainer = lightning.Trainer(..., callbacks=[MemoryCallback()])
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from zero_sizer.integrations.keywords import checked
from zero_sizer.integrations.loop import begin, is_engine
from zero_sizer.integrations.monitor import Monitor

RECORDING = "memory.json"
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _base() -> Any:
    """``Callback`` of the package that the script imported, else of the one that is there."""
    for name in sorted(_PACKAGES, key=lambda package: package not in sys.modules):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("Lightning is not installed: pip install lightning")


class MemoryCallback(_base()):  # type: ignore[misc]  # one of two classes
    """Predicts the memory of a training run, records what it takes, and warns where both differ.

    Rank 0 prints the prediction and sends metrics to the Trainer's loggers; every rank records. An
    error is one line, never the end of a run.

    Args:
        output: the recording; ``memory.json`` in the Trainer's ``default_root_dir`` where not
            given.
        resets_peaks: each phase has a peak of its own, for which
            ``torch.cuda.reset_peak_memory_stats`` is called.
        stated: flags of ``zero-sizer check`` as keywords (``seq_len=4096``), which win over what is
            seen of the run.

    Raises:
        JobError: a keyword that no prediction reads, or a value that it cannot have.
    """

    def __init__(
        self, output: str | Path | None = None, *, resets_peaks: bool = True, **stated: Any
    ) -> None:
        super().__init__()
        self._output = output
        self._resets_peaks = resets_peaks
        self._stated = checked("MemoryCallback", ("output", "resets_peaks"), stated)
        self.monitor: Monitor | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to record; with DeepSpeed's strategy also predict."""
        output = self._output or Path(trainer.default_root_dir) / RECORDING
        self.monitor = Monitor(
            output=output,
            stated=self._stated,
            log=lambda metrics, step: _log(trainer, metrics, step),
            log_every=trainer.log_every_n_steps,
            resets_peaks=self._resets_peaks,
        )
        begin(self.monitor, trainer.strategy.model or pl_module, None, {}, follows=False)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *args: Any) -> None:
        """A micro step begins with its forward."""
        if self.monitor is not None:
            self.monitor.batch(_named(batch))
            self.monitor.forward()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Backward begins."""
        if self.monitor is not None:
            self.monitor.backward()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """The optimizer steps; DeepSpeed's engine is asked at each micro step, and may not."""
        engine = trainer.strategy.model
        if is_engine(engine) and not engine.is_gradient_accumulation_boundary():
            return
        if self.monitor is not None:
            self.monitor.step()

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """The micro step is over, and with the last of them the step."""
        if self.monitor is not None and self.monitor.is_stepping:
            self.monitor.stepped()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """A validation is over."""
        if self.monitor is not None:
            self.monitor.mark("evaluation")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Write the recording of a run that fails."""
        self._finish(exception)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the recording."""
        self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        monitor, self.monitor = self.monitor, None
        if monitor is not None:
            monitor.finish(error)


def _named(batch: Any) -> dict[str, Any]:
    """The batch by the names of its tensors; of a plain tuple the first is the input."""
    if hasattr(batch, "items"):
        return dict(batch.items())
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    return {"input": first}


def _log(trainer: Any, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)
