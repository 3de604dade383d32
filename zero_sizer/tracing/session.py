"""The simulated GPU, without DeepSpeed: where a step is traced."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from zero_sizer.models.sources.transformers_class import only_errors
from zero_sizer.simulator import answers, device
from zero_sizer.simulator.mode import SimulatedMode
from zero_sizer.simulator.operators import attention, autocast, flash
from zero_sizer.simulator.patches import torch as patches
from zero_sizer.simulator.undo import Patches
from zero_sizer.tracing import experts
from zero_sizer.tracing.recorder import Recorder
from zero_sizer.util.gc_paused import collector_off, old_objects_kept

_ANSWERS: dict[Any, Any] = {}  # what operators return, for all traces of this process


class _TracingMode(SimulatedMode):
    """Tells the recorder which operator runs, and its floating-point operations."""

    def __init__(self, recorder: Recorder, *, keeps_values: int) -> None:
        super().__init__(recorder, {**answers.table(), experts.OPERATOR.default: experts.answer})  # type: ignore[arg-type]  # same methods
        self.keeps_values = keeps_values
        self._recorder = recorder
        self._results = _ANSWERS
        from torch.utils.flop_counter import flop_registry

        self._flops = {**flop_registry, experts.OPERATOR: experts.flops}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        recorder = self._recorder
        if self._depth or not recorder.on:
            return super().__torch_dispatch__(func, types, args, kwargs)
        recorder.op = func._overloadpacket.__name__
        formula = self._flops.get(func._overloadpacket)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if formula is not None:
            recorder.count_flops(formula(*args, **(kwargs or {}), out_val=result))
        return result


@contextmanager
def fake_gpu(recorder: Recorder, *, keeps_values: int = 0) -> Iterator[torch.device]:
    """Inside, tensors on the returned device are fake and the recorder hears of their storages.

    The cyclic garbage collector is off: what it frees when would be chance.

    Args:
        recorder: is told.
        keeps_values: elements of the largest tensor whose values are kept (``simulator.values``).
    """
    import transformers

    device.register(local_world_size=1)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(only_errors(transformers))
        stack.enter_context(collector_off())
        stack.enter_context(patches.torch_patches())
        stack.enter_context(attention.fused_attention())
        stack.enter_context(autocast.registered())
        stack.enter_context(flash.installed())
        stack.enter_context(_as_on_a_gpu())
        stack.enter_context(old_objects_kept())  # whoever traces collects after each
        stack.enter_context(_TracingMode(recorder, keeps_values=keeps_values))
        yield torch.device(device.NAME, 0)


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """transformers keeps masks that it need not where it meets fake tensors; not for training."""
    from transformers import masking_utils

    changed = Patches()
    changed.set(masking_utils, "is_tracing", lambda tensor=None: False)
    try:
        yield
    finally:
        changed.undo()
