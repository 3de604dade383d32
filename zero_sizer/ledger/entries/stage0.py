"""Stage 0, with or without a 16-bit wrapper, and BF16_Optimizer: gradients at the step."""

from collections.abc import Callable

from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import FROM_WRAPPING, STEP, Moment
from zero_sizer.optimizers.table import LAMB
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper

_16BIT = (Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)


def _steps_lamb(plan: Plan) -> bool:
    """FusedLamb unscales and casts in its kernel, and is handed 16-bit gradients."""
    return plan.wrapper is Wrapper.FP16_UNFUSED and plan.optimizer is LAMB


def _flattened_for_lamb(name: str, dtype: Callable[[Plan], DType], *until: Moment) -> Entry:
    return Entry(
        name=name,
        category=Category.TEMPORARY,
        about="the gradients once more, as one flat buffer, while Lamb's norm is taken",
        numel=sizes.num_trainable,
        dtype=dtype,
        live=frozenset({Moment.NORM, *until}),
        when=_steps_lamb,
        source="runtime/fp16/unfused_optimizer.py:129-146, runtime/utils.py:get_weight_norm",
    )


ENTRIES = (
    Entry(
        name="gradients",
        category=Category.GRADIENTS,
        about="ordinary .grad tensors, whole, until the step is over",
        numel=sizes.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=STEP,
        when=lambda p: (
            p.wrapper in (*_16BIT, Wrapper.NONE)
            or (p.wrapper is Wrapper.BF16 and not p.immediate_grad_update)
        ),
        source="runtime/engine.py:3523-3530, runtime/bf16_optimizer.py:707-715",
    ),
    Entry(
        name="fp32_gradients",
        category=Category.TEMPORARY,
        about="gradients cast to fp32 for the master weights",
        numel=sizes.num_trainable,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.CAST, Moment.UPDATE}),
        when=lambda p: p.wrapper in _16BIT and not _steps_lamb(p),
        source="runtime/fp16/fused_optimizer.py:230-250, runtime/fp16/unfused_optimizer.py",
    ),
    Entry(
        name="fp32_gradients_flattened",
        category=Category.TEMPORARY,
        about="the fp32 gradients again, as one flat buffer",
        numel=sizes.num_trainable,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.CAST}),
        when=lambda p: p.wrapper is Wrapper.FP16_FUSED,
        source="runtime/fp16/fused_optimizer.py:230-250",
    ),
    _flattened_for_lamb(
        "lamb_gradients_flattened", lambda p: p.model_dtype, Moment.CAST, Moment.UPDATE
    ),
    _flattened_for_lamb("lamb_gradients_for_norm", lambda p: p.model_dtype),
    _flattened_for_lamb("lamb_gradients_for_norm_in_fp32", lambda p: DType.FP32),
    Entry(
        name="fp32_groups_gradient_flat_buffers",
        category=Category.GRADIENTS,
        about="accumulation buffer in grad_accum_dtype, not partitioned",
        numel=lambda p: sum(sizes.flat_groups(p)),
        dtype=lambda p: p.grad_accum_dtype,
        live=FROM_WRAPPING,
        when=lambda p: p.wrapper is Wrapper.BF16,
        source="runtime/bf16_optimizer.py:190-191",
    ),
)
