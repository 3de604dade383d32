"""Device memory that a simulated run does not show, as cited numbers. Bytes out, plain numbers in.

Two kinds that must not be added up blindly. The workspaces below come out of PyTorch's caching
allocator: a real run counts them in ``memory_allocated``. The context and NCCL ranges lie outside
it: only the driver (``nvidia-smi``, ``mem_get_info``) sees them, and no formula gives them, so they
are ranges of published measurements.

Not here because nothing fixes them in advance: cuDNN's workspaces (its heuristics choose an engine
per shape; they are freed after the call), and split-KV buffers of the flash forward (they appear
only when batch x heads cannot fill the GPU).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.units import GIB, KIB, MIB, DType, ceil_div, num_bytes, round_up

_LARGE_WORKSPACE = 32 * MIB
_DEFAULT_WORKSPACE = 2 * 4096 * KIB + 8 * 16 * KIB  # ":4096:2:16:8"
_FLASH_BLOCK = 128
_HOPPER_OR_NEWER = ("h100", "h200", "h20-", "b200", "rtx-5090")
_AMD = "mi"


@dataclass(frozen=True, kw_only=True)
class MeasuredRange:
    """Lowest and highest published measurement of something without a formula.

    Attributes:
        low, high: bytes.
        sources: where each end was published.
    """

    low: int
    high: int
    sources: tuple[str, ...]


def cublas_workspace_bytes(compute_capability_major: int, config: str = "") -> int:
    """Workspace of one cuBLAS handle on one stream, kept until the process ends.

    PyTorch allocates it at the first matrix product of each thread and stream; backward runs in a
    thread of its own, so a training process on one stream holds two. cuBLASLt shares it unless
    ``TORCH_CUBLASLT_UNIFIED_WORKSPACE=0``.

    Args:
        compute_capability_major: 8 for A100 and RTX 30/40, 9 for Hopper, 10 and 12 for Blackwell.
        config: ``CUBLAS_WORKSPACE_CONFIG``, e.g. ``:4096:8`` (size in KiB, count); empty if unset.

    Raises:
        InputError: ``config`` holds no ``:SIZE:COUNT``. (PyTorch warns and takes the default.)

    Source: ``parseChosenWorkspaceSize`` of aten/src/ATen/cuda/CublasHandlePool.cpp; both defaults
    and their condition were read in the code of torch 2.13.0+cu130's libtorch_cuda.so.
    """
    if not config:
        large = compute_capability_major in (9, 10, 12)
        return _LARGE_WORKSPACE if large else _DEFAULT_WORKSPACE
    pairs = re.findall(r":([0-9]+):([0-9]+)", config)
    if not pairs:
        raise InputError(
            f"cannot read {config!r}", remedy="write :SIZE:COUNT", where="CUBLAS_WORKSPACE_CONFIG"
        )
    return sum(int(size) * KIB * int(count) for size, count in pairs)


def cublaslt_workspace_bytes(*, size_kib: int | None = None, unified: bool = True) -> int:
    """Workspace of cuBLASLt beside that of cuBLAS: 0 while the two are shared (the default).

    Args:
        size_kib: ``CUBLASLT_WORKSPACE_SIZE``, None if unset.
        unified: ``TORCH_CUBLASLT_UNIFIED_WORKSPACE`` is not 0.

    Source: ``parseCUDABlasLtWorkspaceSize`` and ``getCUDABlasLtWorkspace`` of the same file.
    """
    if unified:
        return 0
    return (1024 if size_kib is None else size_kib) * KIB


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """One attention call.

    Attributes:
        batch: sequences.
        seq_len_q, seq_len_k: tokens of queries, of keys and values.
        heads, kv_heads: query heads, key and value heads.
        head_dim: elements of one head.
        dtype: of queries, keys and values.
    """

    batch: int
    seq_len_q: int
    seq_len_k: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: DType = DType.BF16


def flash_backward_bytes(shape: AttentionShape, *, deterministic_sms: int = 0) -> int:
    """Scratch of one FlashAttention-2 backward call, freed when it returns.

    Three parts: ``dq_accum``, float32 [batch, seq_q to 128, heads, head_dim to 32 (64 above 128)];
    ``softmax_d``, float32 [batch, heads, seq_q to 128]; and, where key heads are fewer, dk and dv
    of [batch, seq_k, heads, head_dim] before they are summed over the groups.

    Args:
        shape: the call; a head dimension counts as padded to a multiple of 8.
        deterministic_sms: multiprocessors of the GPU if deterministic algorithms are on, else 0;
            ``dq_accum`` then has a copy per split.

    Source: ``mha_bwd`` of aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp (read at
    pytorch commit 03b7c19d), which follows csrc/flash_attn/flash_api.cpp of Dao-AILab's.
    """
    head_dim = round_up(shape.head_dim, 8)
    rounded_dim = round_up(head_dim, 32 if head_dim <= 128 else 64)
    rows = shape.batch * shape.heads * round_up(shape.seq_len_q, _FLASH_BLOCK)
    splits = 1
    if deterministic_sms:
        splits = ceil_div(deterministic_sms, shape.batch * shape.heads)
    accumulators = num_bytes(rows * (splits * rounded_dim + 1), DType.FP32)
    if shape.kv_heads == shape.heads:
        return accumulators
    expanded = 2 * shape.batch * shape.seq_len_k * shape.heads * head_dim
    return accumulators + num_bytes(expanded, shape.dtype)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Scratch memory of one kind of kernel.

    Attributes:
        name: of the library or kernel.
        about: when it is there.
        num_bytes: at once.
        source: what its formula follows.
    """

    name: str
    about: str
    num_bytes: int
    source: str


def workspaces_of(job: Mapping[str, Any]) -> tuple[Workspace, ...]:
    """What a simulated job (``Request`` as JSON) would hold beside its tensors on an NVIDIA GPU.

    Args:
        job: of a recording; a script's says too little about its attention.
    """
    gpu = str(job.get("gpu", ""))
    if gpu.startswith(_AMD):
        return ()
    large = gpu.startswith(_HOPPER_OR_NEWER)
    found = [
        Workspace(
            name="cuBLAS",
            about="from the first matrix product on; another one for backward's thread"
            + ("" if gpu else " (32 MiB each from Hopper on)"),
            num_bytes=cublas_workspace_bytes(9 if large else 8),
            source="aten/src/ATen/cuda/CublasHandlePool.cpp",
        )
    ]
    shape = _attention_of(job)
    if shape is not None:
        flash = Workspace(
            name="flash attention, backward",
            about="during each call",
            num_bytes=flash_backward_bytes(shape),
            source="aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp",
        )
        found.append(flash)
    return tuple(found)


def _attention_of(job: Mapping[str, Any]) -> AttentionShape | None:
    """The shape of a decoder's attention where the flash kernel computes it."""
    config, fields = job.get("config", {}), job.get("hf_config", {})
    precision = [name for name in ("bf16", "fp16") if config.get(name, {}).get("enabled")]
    heads = fields.get("num_attention_heads")
    if job.get("attention") not in ("flash", "sdpa") or not precision or not heads:
        return None
    return AttentionShape(
        batch=job["micro_batch"],
        seq_len_q=job["seq_len"],
        seq_len_k=job["seq_len"],
        heads=heads,
        kv_heads=fields.get("num_key_value_heads") or heads,
        head_dim=fields.get("head_dim") or fields["hidden_size"] // heads,
    )


def _gib(value: float) -> int:
    return round(value * GIB)


CUDA_CONTEXT = MeasuredRange(
    low=256 * MIB,
    high=_gib(0.55),
    sources=(
        "https://github.com/invoke-ai/InvokeAI/issues/9413: 256 MiB, RTX 3090, torch 2.7.1+cu128",
        "https://github.com/unslothai/unsloth-zoo/pull/1053: 426 MiB, RTX 6000 Ada, torch "
        "2.10.0+cu130",
        "stas00/ml-engineering@744d01e1 training/performance/README.md: 0.47 GiB, A100-80GB, torch "
        "2.1.1+cu121; 0.55 GiB before the first NCCL barrier",
    ),
)
"""Per process and GPU, kernels loaded when first used (the default since CUDA 11.7)."""

CUDA_CONTEXT_EAGER = MeasuredRange(
    low=_gib(0.9),
    high=_gib(1.78),
    sources=(
        "stas00/ml-engineering@744d01e1 training/performance/README.md: A100-80GB, 0.90 GiB with "
        "torch 1.13.1, 0.92 with 2.1.1+cu121, 1.78 with 1.10.2",
    ),
)
"""The same with ``CUDA_MODULE_LOADING=EAGER``: every kernel at start."""

NCCL_COMMUNICATOR = MeasuredRange(
    low=1_060_000_000 - _gib(0.55),
    high=1_600_000_000,
    sources=(
        "https://github.com/NVIDIA/nccl/issues/1685: 1.06 GB outside PyTorch, context and all, on "
        "8 x H100 before the first all-to-all (the highest lazy context is taken off)",
        "stas00/ml-engineering@744d01e1 training/performance/README.md: 0.55 to 2.00 GiB over the "
        "first barrier of 2 GPUs",
        "https://github.com/NVIDIA/nccl/issues/864: about 1.6 GB after one communicator's first "
        "all-reduce",
    ),
)
"""One communicator after its first collective; each further one adds its own. It grows with links
(channels), not with ranks beyond two nodes. All-to-all takes more: 4.34 GB in nccl#1685."""
