"""Where a training loop's phases begin and end, told by hooks on its model and optimizer."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol

import torch

from zero_sizer.dryrun.measure import tensors_in


class Listener(Protocol):
    """Is told what the loop does."""

    def batch(self, batch: Mapping[str, Any]) -> None:
        """A forward in training begins with this batch."""

    def forward(self) -> None:
        """A forward begins."""

    def backward(self) -> None:
        """A backward begins."""

    def step(self) -> None:
        """The optimizer's step begins."""

    def stepped(self) -> None:
        """The optimizer's step is done."""

    def give_up(self, why: str) -> None:
        """Something went wrong here."""


class Hooks:
    """Hooks on a model and its optimizer, until ``remove``.

    A forward counts while the model trains and gradients are on. Backward begins where a gradient
    reaches what the model returned. With a DeepSpeed engine the step is the engine's, else the
    optimizer's.

    Args:
        model: what the loop calls.
        engine: the DeepSpeed engine, None without one.
        optimizer: torch's optimizer, where there is no engine.
        listener: is told.
    """

    def __init__(self, model: Any, engine: Any, optimizer: Any, listener: Listener) -> None:
        self._listener = listener
        self._handles: list[Any] = [
            model.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True),
            model.register_forward_hook(self._leave),
        ]
        self._engine = engine
        if engine is not None:
            engine.step = self._stepping(engine)
        elif optimizer is not None:
            self._handles += [
                optimizer.register_step_pre_hook(lambda *_: self._listener.step()),
                optimizer.register_step_post_hook(lambda *_: self._listener.stepped()),
            ]

    def remove(self) -> None:
        """Take all of them off again."""
        for handle in self._handles:
            handle.remove()
        if self._engine is not None:
            self._engine.__dict__.pop("step", None)
        self._handles, self._engine = [], None

    def _enter(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not module.training or not torch.is_grad_enabled():
            return
        named = {"input": args[0]} if args else {}
        self._listener.batch({**named, **kwargs})
        self._listener.forward()

    def _leave(self, module: Any, args: Any, output: Any) -> None:
        if not module.training or not torch.is_grad_enabled():
            return
        try:
            for tensor in tensors_in(output):  # whatever of it the loss is made of
                if tensor.requires_grad:
                    tensor.register_hook(self._reached)
        except Exception as error:  # an output of an odd kind is no reason to end a run
            self._listener.give_up(f"{type(error).__name__}: {error}")

    def _reached(self, gradient: Any) -> None:
        self._listener.backward()

    def _stepping(self, engine: Any) -> Callable[..., Any]:
        original = engine.step

        @wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:
            is_whole = bool(engine.is_gradient_accumulation_boundary())
            if is_whole:
                self._listener.step()
            result = original(*args, **kwargs)
            if is_whole:
                self._listener.stepped()
            return result

        return step
