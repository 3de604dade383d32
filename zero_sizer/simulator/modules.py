"""Which module is running, for the trace."""

from typing import Any

import torch

from zero_sizer.simulator.tracker import Tracker


def follow(model: Any, tracker: Tracker) -> None:
    """Keeps ``tracker.module`` at the innermost module whose forward runs.

    In backward the module is the one being recomputed, or else the autograd node that runs.
    """
    names = {id(module): name for name, module in model.named_modules()}
    stack: list[str] = []

    def enter(module: Any, args: Any) -> None:
        stack.append(names.get(id(module), type(module).__name__))
        tracker.module = stack[-1]

    def leave(module: Any, args: Any, output: Any) -> None:
        stack.pop()
        tracker.module = stack[-1] if stack else ""

    for module in model.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave, always_call=True)
    tracker.name_of_node = _running_node


def _running_node() -> str:
    node = torch._C._current_autograd_node()
    return node.name() if node is not None else ""
