"""Replacements in DeepSpeed: questions to silent peers, and its memory log."""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator.patches import questions, rank_meshes, short_loops
from zero_sizer.simulator.tracker import GPU, Tracker
from zero_sizer.simulator.undo import Patches
from zero_sizer.units import GIB

# These log every layer, parameter and module; a reader wants the engine's milestones.
_CHATTY = (
    "deepspeed.runtime.activation_checkpointing.checkpointing",
    "deepspeed.runtime.zero.partition_parameters",
    "deepspeed.runtime.zero.parameter_offload",
)
_MILESTONES = ("DeepSpeedZeRoOffload initialize",)


@contextmanager
def engine_patches(
    tracker: Tracker, log: list[str], *, host_total: int, short_loops_of_rank: int | None
) -> Iterator[Patches]:
    """DeepSpeed alone among silent peers; its ``see_memory_usage`` lines go to ``log``.

    Args:
        tracker: answers the memory questions.
        log: receives DeepSpeed's lines.
        host_total: bytes of host memory a node has, for the percentage in the lines.
        short_loops_of_rank: this rank, to shorten loops over all ranks; None keeps DeepSpeed's.
    """
    patches = Patches()
    _everywhere(patches, "assert_ints_same_as_other_ranks", lambda module: _agree)
    _everywhere(
        patches, "see_memory_usage", lambda module: _memory_log(module, tracker, log, host_total)
    )
    _everywhere(patches, "start_optimizer_process", lambda module: _starts_no_process)
    importlib.import_module("deepspeed.runtime.superoffload.superoffload_stage3")
    _everywhere(patches, "SuperOffloadCPUOptimizer", lambda module: _offloads_to_no_process)
    questions.install_in_engine(patches)
    _keep_shapes(patches)
    _list_no_compile_passes(patches)
    partitioning = importlib.import_module("deepspeed.runtime.zero.partition_parameters")
    # zero.Init puts back the constructor that was there when DeepSpeed was imported
    patches.set(partitioning, "_orig_torch_tensor", importlib.import_module("torch").tensor)
    rank_meshes.install(patches)
    # Optimizers on the host ask for the CPU's maker, in child processes that take seconds.
    patches.set(importlib.import_module("cpuinfo"), "get_cpu_info", dict)
    if short_loops_of_rank is not None:
        short_loops.install(patches, short_loops_of_rank)
    try:
        yield patches
    finally:
        patches.undo()


def _starts_no_process(*_: Any, **__: Any) -> None:
    """ZenFlow's, which would share memory that is not there (zenflow_utils.py:159)."""
    raise UnsupportedError(
        "ZenFlow's overlap_step steps in a process of its own, which is not simulated",
        remedy='set "overlap_step": false in the dry run; the memory of that process is beside it',
    )


def _offloads_to_no_process(*_: Any, **__: Any) -> None:
    """SuperOffload's optimizer, which holds states and masters (superoffload_utils.py:197)."""
    raise UnsupportedError(
        "SuperOffload steps in a process of its own, which is not simulated",
        remedy='leave "super_offload" out in the dry run; the memory of that process is beside it',
    )


@contextmanager
def agreeing_peers() -> Iterator[None]:
    """DeepSpeed's comparisons of values across ranks pass without asking."""
    patches = Patches()
    _everywhere(patches, "assert_ints_same_as_other_ranks", lambda module: _agree)
    try:
        yield
    finally:
        patches.undo()


def _everywhere(patches: Patches, name: str, make: Callable[[str], Any]) -> None:
    """Replaces a function in every DeepSpeed module that imported it by name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("deepspeed") and name in vars(module):
            patches.set(module, name, make(module_name))


def _keep_shapes(patches: Patches) -> None:
    """Partitioned activations get their shapes back, which DeepSpeed keeps as tensors.

    It packs them into one buffer of some bytes where checkpoints are contiguous; not here.
    """
    from deepspeed.runtime.activation_checkpointing import checkpointing

    original = checkpointing.get_partitioned_activations_for_backward

    def partitioned(args: Any, inputs: Any, contiguous_checkpoint: bool) -> Any:
        shapes = [list(arg.size()) if torch.is_tensor(arg) else None for arg in args]
        found = original(args, inputs, False)
        for size, shape in zip(found[1::2], shapes, strict=True):
            if shape is not None:
                size.numpy = lambda shape=shape: shape
        return found

    patches.set(checkpointing, "get_partitioned_activations_for_backward", partitioned)


def _list_no_compile_passes(patches: Patches) -> None:
    """An engine on "cuda" lists DeepCompile's passes, used or not: torch's compiler, a second."""
    engines = importlib.import_module("deepspeed.runtime.engine").DeepSpeedEngine
    original = engines.register_compile_pass

    def register(engine: Any, *args: Any, **kwargs: Any) -> None:
        if engine.is_deepcompile_enabled():
            original(engine, *args, **kwargs)

    patches.set(engines, "register_compile_pass", register)


def _agree(ints: list[int]) -> None:
    """Silent peers always hold the same values."""


def _memory_log(
    module: str, tracker: Tracker, log: list[str], host_total: int
) -> Callable[..., None]:
    def see_memory_usage(message: str, force: bool = False) -> None:
        if module in _CHATTY and not message.startswith(_MILESTONES):
            return
        if not log:
            gc.collect()  # as DeepSpeed's own does: weights that were tied away hang in cycles
        log.extend(memory_lines(message, tracker, host_total))
        tracker.reset_device_peak()

    return see_memory_usage


def memory_lines(message: str, tracker: Tracker, host_total: int) -> list[str]:
    """DeepSpeed 0.19.8's format (runtime/utils.py); GiB labelled GB, as it labels them."""
    live, peak = tracker.live(GPU) / GIB, tracker.device_peak(GPU) / GIB
    cached, most_cached = tracker.reserved(GPU) / GIB, tracker.device_peak_reserved() / GIB
    host = tracker.live_host()
    percent = round(100 * host / host_total, 1) if host_total else 0.0
    gap = " " * 8
    return [
        message,
        f"MA {round(live, 2)} GB {gap}Max_MA {round(peak, 2)} GB "
        f"{gap}CA {round(cached, 2)} GB {gap}Max_CA {round(most_cached)} GB ",
        f"CPU Virtual Memory:  used = {round(host / GIB, 2)} GB, percent = {percent}%",
    ]
