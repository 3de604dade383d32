"""The workspace that PyTorch gives cuBLAS or hipBLAS: one rule for the ledger and for dry runs."""

import re

from zero_sizer.errors import InputError
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.units import KIB, MIB

SOURCE = "pytorch v2.13 aten/src/ATen/cuda/CublasHandlePool.cpp:parseChosenWorkspaceSize"

_DEFAULT = 2 * 4096 * KIB + 8 * 16 * KIB  # ":4096:2:16:8"
_LARGE = 32 * MIB
_LARGE_FROM = (9, 10, 12)  # Hopper and both Blackwells
_ROCM = 32 * MIB
_ROCM_LARGE = 128 * MIB
_ROCM_LARGE_FROM = ("gfx94", "gfx95")


def blas_bytes(gpu: Gpu | None, config: str = "") -> int:
    """Workspace of one cuBLAS or hipBLAS handle on one stream, kept until the process ends.

    PyTorch allocates it at the first matrix product of each thread and stream; backward runs in a
    thread of its own, so a training process on one stream holds two. cuBLASLt shares it unless
    ``TORCH_CUBLASLT_UNIFIED_WORKSPACE=0``.

    Args:
        gpu: decides by its compute capability, or by AMD's name of its architecture; None: a CUDA
            GPU before Hopper.
        config: ``CUBLAS_WORKSPACE_CONFIG``, e.g. ``:4096:8`` (size in KiB, count); empty if unset.

    Raises:
        InputError: ``config`` holds no ``:SIZE:COUNT``. (PyTorch warns and takes the default.)

    Source: ``SOURCE``; the CUDA defaults and their condition were read in the code of torch
    2.13.0+cu130's libtorch_cuda.so, those of ROCm in the source (``USE_ROCM``).
    """
    if not config:
        return _default(gpu)
    pairs = re.findall(r":([0-9]+):([0-9]+)", config)
    if not pairs:
        raise InputError(
            f"cannot read {config!r}", remedy="write :SIZE:COUNT", where="CUBLAS_WORKSPACE_CONFIG"
        )
    return sum(int(size) * KIB * int(count) for size, count in pairs)


def _default(gpu: Gpu | None) -> int:
    if gpu is None:
        return _DEFAULT
    if gpu.gfx:
        return _ROCM_LARGE if gpu.gfx.startswith(_ROCM_LARGE_FROM) else _ROCM
    capability = gpu.compute_capability
    return _LARGE if capability is not None and capability[0] in _LARGE_FROM else _DEFAULT
