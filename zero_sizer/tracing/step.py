"""One traced training step: forward, loss and backward, with marks where a timeline needs them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from zero_sizer.models.feeds import Feed
from zero_sizer.simulator import batches
from zero_sizer.tracing.recorder import Event, Recorder, in_order_of_backward
from zero_sizer.util.records import dataclass

_HIDDEN = ("hidden_states", "hidden_state", "x")  # what blocks call their input


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Trace of one step.

    Attributes:
        events: in order.
        sizes: bytes of each storage.
        flops: (events before it, count) of each operator that has a formula.
    """

    events: tuple[Event, ...]
    sizes: tuple[int, ...]
    flops: tuple[tuple[int, int], ...]


def run_step(
    model: Any,
    blocks: Sequence[str],
    recorder: Recorder,
    batch: dict[str, Any],
    feed: Feed | None = None,
    *,
    autocast: bool,
) -> Trace:
    """Traces one step of ``model`` on the recorder's device.

    Args:
        model: in training mode, its parameters without gradients.
        blocks: qualified names of its blocks.
        recorder: of the device that the model and batch are on.
        batch: keyword arguments of the forward.
        feed: what the batch was made of, where it is more than token ids and labels.
        autocast: whether the forward runs under bf16 autocast.
    """
    recorder.begin()
    where = next(value for value in batch.values() if torch.is_tensor(value)).device
    with _hooks(model, blocks, recorder):
        recorder.on = True
        try:
            context = torch.autocast(where.type, torch.bfloat16) if autocast else nullcontext()
            with context:
                output = model(**batch)
            recorder.mark("loss")
            loss = batches.loss_of(output, feed, batch)
            del output
            recorder.mark("backward")
            loss.backward()
            recorder.leave_last_block()
            recorder.mark("end")
        finally:
            recorder.on = False
    trace = Trace(
        events=tuple(in_order_of_backward(recorder.events)),
        sizes=tuple(recorder.sizes),
        flops=tuple(recorder.flops),
    )
    del loss
    return trace


@contextmanager
def _hooks(model: Any, blocks: Sequence[str], recorder: Recorder) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        if name in set(blocks):
            handles += _block_hooks(name, module, recorder)
        elif name and not _is_list(module):
            handles.append(module.register_forward_pre_hook(_marker(recorder, "module", name)))
            handles.append(module.register_forward_hook(_marker(recorder, "ends", name)))
            handles.append(module.register_forward_hook(_returns(recorder, name)))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        handles.append(parameter.register_post_accumulate_grad_hook(_gradient(recorder, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_list(module: Any) -> bool:
    return isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict)


def _marker(recorder: Recorder, kind: str, name: str) -> Any:
    def hook(module: Any, *_: Any) -> None:
        recorder.mark(kind, name)

    return hook


def _returns(recorder: Recorder, name: str) -> Any:
    def hook(module: Any, args: Any, output: Any) -> None:
        if isinstance(module, torch.nn.MultiheadAttention):
            output = output[0]
        if torch.is_tensor(output):
            _watch_gradient(output, recorder, "returns", name)

    return hook


def _gradient(recorder: Recorder, name: str) -> Any:
    def hook(parameter: Any) -> None:
        recorder.mark("gradient", name, parameter.grad)
        parameter.grad = None

    return hook


def _block_hooks(name: str, module: Any, recorder: Recorder) -> list[Any]:
    def before(module: Any, args: Any, kwargs: Any) -> None:
        recorder.mark("enter", name)
        _watch_gradient(_hidden(args, kwargs), recorder, "leaves", name)

    def after(module: Any, args: Any, output: Any) -> None:
        _watch_gradient(output if torch.is_tensor(output) else output[0], recorder, "comes", name)
        recorder.mark("leave", name)

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]


def _hidden(args: Any, kwargs: Any) -> Any:
    if args:
        return args[0]
    return next(kwargs[name] for name in _HIDDEN if name in kwargs)


def _watch_gradient(tensor: Any, recorder: Recorder, kind: str, name: str) -> None:
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: recorder.mark(kind, name, gradient))
