"""Changes of a CPU rank in its own process so that a dry run needs no compiler and no GPU.

None of it changes which tensors DeepSpeed makes:

* optimizer kernels come from ``kernels`` unless ``ZERO_SIZER_KERNELS=compiled`` is set;
* the shared-memory all-reduce (for inference) is not compiled;
* DeepSpeedCPUAdam asks a child process for the CPU's maker each time, which takes a second, to warn
  of fp16 on AMD's; nobody answers, or where kernels are compiled, the answer is kept;
* what torch.compile would compile (Muon's kernels) runs as it is written, and the compiler is not
  imported, which takes a rank longer than its engine;
* fp16 is allowed where the CPU has no fast fp16: slower, the same bytes;
* gloo works with one thread, so that a rank can wait until it holds nothing.
"""

import importlib
import os
from functools import cache
from typing import Any

import torch

from zero_sizer.simulator import uncompiled


def prepare(accelerator: Any, address: str) -> None:
    """Change this process as the module says.

    Args:
        accelerator: DeepSpeed's CPU accelerator.
        address: this host's, at which other ranks reach this one.
    """
    from zero_sizer.dryrun.launched import kernels, quiet

    torch.set_num_threads(1)
    uncompiled.compile_nothing()
    # As an attribute of deepspeed.comm, ``torch`` is the torch package itself.
    backend: Any = importlib.import_module("deepspeed.comm.torch")
    backend.build_shm_op = lambda: None
    cpuinfo: Any = importlib.import_module("cpuinfo")
    accelerator.is_fp16_supported = lambda: True
    quiet.install(address)
    if uses_compiled_kernels():
        cpuinfo.get_cpu_info = cache(cpuinfo.get_cpu_info)
    else:
        cpuinfo.get_cpu_info = dict
        kernels.install()


def uses_compiled_kernels() -> bool:
    """True if the environment asks for DeepSpeed's own kernels."""
    return os.environ.get("ZERO_SIZER_KERNELS") == "compiled"


def notes() -> tuple[str, ...]:
    """Notes for the reader of a recording about ``prepare``."""
    kernels = (
        "optimizer kernels: torch stand-ins (set ZERO_SIZER_KERNELS=compiled for DeepSpeed's own)"
    )
    return (
        "optimizer kernels: DeepSpeed's own, compiled" if uses_compiled_kernels() else kernels,
        "fp16 is run whether or not this CPU has fast fp16",
    )
