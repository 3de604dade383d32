"""The training loop around a DeepSpeed engine, of every dry run."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from zero_sizer.simulator import batches


class Observer(Protocol):
    """Is told when a phase begins and ends."""

    def begin(self, name: str, *, step: int, micro_step: int) -> None:
        """A phase begins."""

    def end(self, engine: Any) -> None:
        """A phase is over."""


def initialize(config: Mapping[str, Any], model: Any, optimizer: Any) -> Any:
    """``deepspeed.initialize`` as a user's script calls it."""
    import deepspeed

    if optimizer is not None:
        config = {**config, "zero_allow_untested_optimizer": True}  # as the Trainer sets it
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        model_parameters=None if optimizer is not None else trainable,
        config=dict(config),
    )
    return engine


def train(
    engine: Any,
    make_batch: Callable[[], dict[str, Any]],
    *,
    steps: int,
    grad_accum: int,
    observer: Observer,
    loss_of: Callable[[Any, dict[str, Any]], Any] = lambda output, batch: batches.loss_of(output),
) -> None:
    """``steps`` optimizer steps of ``grad_accum`` micro steps each.

    Args:
        engine: what ``deepspeed.initialize`` returned.
        make_batch: keyword arguments of one forward, on the device.
        steps: optimizer steps.
        grad_accum: micro steps of each.
        loss_of: the loss, from what a model returned and the batch.
        observer: told about forward, backward and step of every micro step.
    """
    for step in range(steps):
        for micro_step in range(grad_accum):
            batch = make_batch()  # stays until the next one, as a loop variable does
            _to_train(engine.optimizer)
            observer.begin("forward", step=step, micro_step=micro_step)
            loss = loss_of(engine(**batch), batch)
            observer.end(engine)
            observer.begin("backward", step=step, micro_step=micro_step)
            engine.backward(loss)
            del loss
            observer.end(engine)
            observer.begin("step", step=step, micro_step=micro_step)
            engine.step()
            observer.end(engine)


def _to_train(optimizer: Any) -> None:
    """As the Trainer does before each step; only schedule-free optimizers have it."""
    switch = getattr(optimizer, "train", None)
    if callable(switch):
        switch()
