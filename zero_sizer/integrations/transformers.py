"""A callback of transformers' Trainer, and of trl's.

Use it as::

    from zero_sizer.integrations.transformers import MemoryCallback
    trainer = Trainer(..., callbacks=[MemoryCallback()])
"""

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from zero_sizer.integrations.keywords import checked
from zero_sizer.integrations.left_out import left_out
from zero_sizer.integrations.loop import begin
from zero_sizer.integrations.monitor import Monitor

RECORDING = "memory.json"
_LENGTHS = ("max_length", "max_seq_length", "model_max_length", "block_size")


class MemoryCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
    """Predicts the memory of a training run, records what it takes, and warns where both differ.

    Rank 0 prints the prediction and sends metrics to whatever ``report_to`` names; every rank
    records. An error is one line, never the end of a run.

    Args:
        output: the recording; ``memory.json`` in the run's ``output_dir`` where not given.
        resets_peaks: each phase has a peak of its own, for which
            ``torch.cuda.reset_peak_memory_stats`` is called; off where the Trainer's own memory
            metrics are on (``skip_memory_metrics=False``).
        stated: flags of ``zero-sizer check`` as keywords (``seq_len=4096``,
            ``cluster_profile="cluster.json"``), which win over what is seen of the run.

    Raises:
        JobError: a keyword that no prediction reads, or a value that it cannot have.
    """

    def __init__(
        self, output: str | Path | None = None, *, resets_peaks: bool = True, **stated: Any
    ) -> None:
        self._output = output
        self._resets_peaks = resets_peaks
        self._stated = checked("MemoryCallback", ("output", "resets_peaks"), stated)
        self._trainer: Any = None
        self.monitor: Monitor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Predict, and begin to record."""
        output = self._output or Path(args.output_dir) / RECORDING
        own_metrics = not getattr(args, "skip_memory_metrics", True)
        if self.monitor is not None:  # of a run that did not end: a smaller batch is tried, say
            self.monitor.finish()
        monitor = self.monitor = Monitor(
            output=output,
            stated=self._stated,
            resets_peaks=self._resets_peaks and not own_metrics,
        )
        try:
            self._trainer = _trainer_of(self)
            loop, found = _loop(args), tuple(left_out(self._trainer))
        except Exception as error:
            monitor.give_up(f"{type(error).__name__}: {error}")
            return
        called = getattr(self._trainer, "model_wrapped", None) or kwargs["model"]
        begin(monitor, called, kwargs.get("optimizer"), loop, left_out=found)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Send what was recorded since the last time where the Trainer sends its own."""
        if self.monitor is None or not state.is_world_process_zero:
            return
        metrics = self.monitor.take_metrics()
        handler = getattr(self._trainer, "callback_handler", None)
        reporters = tuple(INTEGRATION_TO_CALLBACK.values())
        for callback in getattr(handler, "callbacks", ()) if metrics else ():
            if isinstance(callback, reporters):
                callback.on_log(args, state, control, logs=dict(metrics), **kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint was written."""
        if self.monitor is not None:
            self.monitor.mark("save")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation is over."""
        if self.monitor is not None:
            self.monitor.mark("evaluation")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the recording."""
        if self.monitor is not None:
            self.monitor.finish()
        self._trainer = None


def _trainer_of(callback: TrainerCallback) -> Any:
    """The Trainer that holds the callback, which no event is told; None where there is none."""
    for candidate in gc.get_objects():
        # Not isinstance: that asks lazy proxies for their class, which may run their imports.
        if issubclass(type(candidate), transformers.Trainer):
            handler = getattr(candidate, "callback_handler", None)
            if any(held is callback for held in getattr(handler, "callbacks", ())):
                return candidate
    return None


def _loop(args: Any) -> Mapping[str, Any]:
    """Of the workload, what TrainingArguments state."""
    optim = getattr(args, "optim", None)
    found: dict[str, Any] = {
        "optim": getattr(optim, "value", optim),
        "num_workers": args.dataloader_num_workers,
        "prefetch": args.dataloader_prefetch_factor,
        "kernels": "liger" if args.use_liger_kernel else None,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
    }
    for name in _LENGTHS:
        length = getattr(args, name, None)
        if isinstance(length, int):
            found["seq_len"] = length
            break
    return {name: value for name, value in found.items() if value is not None}
