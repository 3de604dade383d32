"""Bytes that a product with weights in DeepSpeed's own codes takes beside its result."""

from functools import lru_cache
from math import prod

from zero_sizer.models.spec import ModelSpec
from zero_sizer.timeline.unpacking import relative
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.identity import Identity


def decoded_bytes(spec: ModelSpec, module: str, rows: int, dtype: DType) -> int:
    """Bytes of the whole weight, and of its codes on the way, beyond those of the result.

    In fp16 a kernel makes it at once where groups lie along rows and are multiples of 8
    (inference/quantization/utils.py:110); else 4 bits become 8 first.

    Args:
        spec: of which ``codes`` are known.
        module: a layer's name without its block; ``lm_head`` may share the first weight.
        rows: of the result.
        dtype: of the model.
    """
    codes, shape = spec.codes, _shapes(Identity(spec)).get(module)
    if codes is None or shape is None:
        return 0
    whole = num_bytes(prod(shape), dtype)
    has_kernel = dtype is DType.FP16 and codes.size % 8 == 0 and codes.dimension == 1
    if codes.bits == 8 or has_kernel:
        return whole
    is_table = module == relative(spec.parameters[0].module)
    result = num_bytes(rows * shape[1 if is_table else 0], dtype)
    return max(whole, whole + prod(shape) - result)


@lru_cache(maxsize=32)
def _shapes(model: Identity) -> dict[str, tuple[int, ...]]:
    spec: ModelSpec = model.of
    found = {relative(t.module): t.unpacked for t in spec.parameters if t.unpacked is not None}
    table = spec.parameters[0].unpacked
    if spec.arch.tied_embeddings and table is not None:
        found.setdefault("lm_head", table)
    return found
