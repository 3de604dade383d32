"""Questions that torch and DeepSpeed ask thousands of times, answered from what is known.

Each costs microseconds in Python, before every operator or around every function, and decides
nothing on a simulated GPU.
"""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch._library import simple_registry

from zero_sizer.simulator.undo import Patches

_find = vars(simple_registry).get("find_torch_dispatch_rule")  # torch 2.5 and later
_MODES: set[type] = set()


def without_rules(mode: type) -> None:
    """No operator has a rule for this class of modes: torch need not look before each of them."""
    _MODES.add(mode)


def install(patches: Patches) -> None:
    """Before the first operator: torch keeps the function that it finds then.

    Args:
        patches: remembers what stood there.
    """
    if _find is not None:
        patches.set(simple_registry, "find_torch_dispatch_rule", _rule)
    patches.set(importlib.import_module("torch.autograd.function"), "inspect", _Inspect())


def install_in_engine(patches: Patches) -> None:
    """DeepSpeed's questions: marks for a profiler, ranks for messages that nobody reads, and more.

    Args:
        patches: remembers what stood there.
    """
    patches.set(importlib.import_module("deepspeed.utils.nvtx"), "enable_nvtx", False)
    # ``hasattr`` of what few modules have goes through torch's ``__getattr__`` and an exception
    patches.set(torch.nn.Module, "_z3_leaf", False)
    engine = importlib.import_module("deepspeed.runtime.engine").DeepSpeedEngine
    check = vars(engine).get("_check_for_duplicates")
    if check is not None:
        patches.set(engine, "_check_for_duplicates", _checks_quickly(check))
    for name, module in list(sys.modules.items()):
        printer: Any = vars(module).get("print_rank_0") if name.startswith("deepspeed.") else None
        if getattr(printer, "__defaults__", None) == (False, False):  # debug, force
            patches.set(module, "print_rank_0", _prints_if_asked(printer))


def _checks_quickly(original: Callable[..., None]) -> Callable[..., None]:
    """Each parameter's place in each group is sought one by one, parameters squared."""

    def check(engine: Any, optimizer: Any) -> None:
        listed = [id(param) for group in optimizer.param_groups for param in group["params"]]
        if len(set(listed)) < len(listed):
            original(engine, optimizer)

    return check


def _prints_if_asked(original: Callable[..., None]) -> Callable[..., None]:
    """Without ``debug`` and ``force`` it asks for the rank and prints nothing."""

    def print_rank_0(message: str, debug: bool = False, force: bool = False) -> None:
        if debug or force:
            original(message, debug=debug, force=force)

    return print_rank_0


def _rule(operator: Any, kind: type) -> Callable[..., Any] | None:
    return None if kind in _MODES or _find is None else _find(operator, kind)


class _Inspect(SimpleNamespace):
    """``inspect`` for ``autograd.Function.apply``, which asks for one signature at every call."""

    def __init__(self) -> None:
        super().__init__(signature=functools.cache(inspect.signature))

    def __getattr__(self, name: str) -> Any:
        return getattr(inspect, name)
