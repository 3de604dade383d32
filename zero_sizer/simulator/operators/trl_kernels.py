"""trl's Triton kernels, silent: on a GPU they fold tiles of logits in place.

trl takes them on CUDA alone; elsewhere it does the same in torch, with temporaries of several
tiles that a GPU never holds (``trl/kernels/chunked_logprob.py``). Its Python around them runs as
it is and allocates as it does.
"""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from zero_sizer.simulator.undo import Patches

_PACKAGE = "trl.kernels."
_USERS = ("trl.trainer.utils",)  # take names of the package


class _Kernel:
    """A Triton function: called as ``kernel[grid](...)``, it writes into what it was given."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return _nothing


def _nothing(*args: object, **kwargs: object) -> None:
    """A kernel's work."""


def install(patches: Patches) -> None:
    """Replaces them where trl has been imported; without trl nothing happens."""
    names = [name for name in sys.modules if name.startswith(_PACKAGE)]
    for name in (*names, *_USERS):
        module = sys.modules.get(name)
        if module is None or not hasattr(module, "_use_triton"):
            continue
        patches.set(module, "_use_triton", lambda device: True)
        for attribute in [found for found in vars(module) if found.endswith("_kernel")]:
            patches.set(module, attribute, _Kernel())
        if hasattr(module, "_addmm_fp32"):  # cuBLAS adds 16-bit products to the fp32 sum itself
            patches.set(module, "_addmm_fp32", _nothing)
        if not hasattr(module, "triton"):
            patches.set(module, "triton", SimpleNamespace(cdiv=lambda a, b: -(-a // b)))
