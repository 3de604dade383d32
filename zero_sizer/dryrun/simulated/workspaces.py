"""Device memory that a simulated run does not show, as cited numbers. Bytes out, plain numbers in.

They come out of PyTorch's caching allocator: a real run counts them in ``memory_allocated``. What
lies outside it (context, NCCL) is in ``zero_sizer.hardware.outside``.

Not here because nothing fixes them in advance: cuDNN's workspaces (its heuristics choose an engine
per shape; they are freed after the call), and split-KV buffers of the flash forward (they appear
only when batch x heads cannot fill the GPU).
"""

from collections.abc import Mapping
from typing import Any

from zero_sizer.hardware import catalog
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.units import KIB, DType, ceil_div, num_bytes, round_up
from zero_sizer.util.records import dataclass

_FLASH_BLOCK = 128


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
    """Workspaces of a simulated job (``Request`` as JSON) beside what was counted on a GPU.

    Args:
        job: of a recording; a script's says too little about its attention.
    """
    name = str(job.get("gpu", ""))
    gpu = catalog.find(name) if name else None
    found = []
    if gpu is None:  # else the run counts it
        found.append(
            Workspace(
                name="cuBLAS",
                about="from the first matrix product on; another one for backward's thread (32 MiB "
                "each from Hopper on)",
                num_bytes=blas_bytes(None),
                source="aten/src/ATen/cuda/CublasHandlePool.cpp",
            )
        )
    shape = _attention_of(job)
    if shape is not None and (gpu is None or not gpu.gfx):  # CUDA's kernel
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
