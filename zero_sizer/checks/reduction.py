"""Gradient reduction: what is summed, scaled, clipped, and in which buckets."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import ZERO, Context, Rule
from zero_sizer.findings import Finding

NORM = ZERO + "compute_grad_norm"


def sum_instead_of_mean(context: Context) -> Iterator[Finding]:
    """runtime/config.py, _do_error_check."""
    if context.value("gradient_allreduce_op") != "sum":
        return
    partners = {
        "ZeRO stage 3": context.stage == 3,
        "ZenFlow": context.flag(ZERO + "zenflow"),
        "DeepCompile": context.flag("compile.deepcompile"),
    }
    for partner, present in partners.items():
        if present:
            yield context.error(
                "allreduce-sum",
                "gradient_allreduce_op",
                f"ValueError: summing gradients is not supported with {partner}",
                'delete it; "mean" is the default',
            )


def no_grad_norm(context: Context) -> Iterator[Finding]:
    """zero/config.py, compute_grad_norm_valid; stage_1_and_2.py:212-218; engine.py:2307."""
    if context.flag(NORM):
        return
    if context.stage not in (1, 2):
        reason = f"ValidationError: only stages 1 and 2 can leave the norm out, not {context.stage}"
    elif engine.uses_bf16_optimizer(context):
        reason = "ValueError: BF16_Optimizer (stage 1, bf16, fp32 accumulation) needs the norm"
    elif (context.number("gradient_clipping") or 0) > 0:
        default = context.settings.is_default("gradient_clipping")
        clipping = f"gradient_clipping {context.number('gradient_clipping'):g}"
        reason = f"ValueError: {clipping}{', the default,' if default else ''} needs the norm"
    elif context.flag(ZERO + "zenflow"):
        reason = "ValueError: ZenFlow needs the norm"
    elif engine.offloads_optimizer(context):
        reason = "ValueError: optimizer offload needs the norm"
    else:
        return
    yield context.error("grad-norm", NORM, reason, "delete it, or set gradient_clipping to 0")


def scaling_with_reduce_scatter(context: Context) -> Iterator[Finding]:
    """stage_1_and_2.py:346-351, stage3.py:392-396."""
    mean = context.value("gradient_allreduce_op") != "sum"
    if not context.flag(ZERO + "reduce_scatter") or not (
        context.stage == 3 or (context.stage == 2 and mean)
    ):
        return
    remedy = f"delete it, or set {ZERO}reduce_scatter to false"
    if context.value("gradient_predivide_factor") != 1.0:
        yield context.error(
            "reduce-scatter-scaling",
            "gradient_predivide_factor",
            f"AssertionError: stage {context.stage} with reduce_scatter takes no factor but 1",
            remedy,
        )
    if context.flag("prescale_gradients"):
        yield context.error(
            "reduce-scatter-scaling",
            "prescale_gradients",
            f"AssertionError: stage {context.stage} with reduce_scatter cannot scale beforehand",
            remedy,
        )


def odd_allgather_bucket(context: Context) -> Iterator[Finding]:
    """stage_1_and_2.py:389."""
    key = ZERO + "allgather_bucket_size"
    size = context.number(key)
    if engine.uses_zero12(context) and size is not None and size % 2:
        yield context.error(
            "odd-allgather-bucket",
            key,
            f"AssertionError: {size:g} is not a multiple of 2 elements",
            f"write {size + 1:g}",
        )


def allgather_bucket_is_idle(context: Context) -> Iterator[Finding]:
    """runtime/utils.py:1008-1022: all_gather_into_tensor works in place, without a bucket."""
    key = ZERO + "allgather_bucket_size"
    if engine.uses_zero12(context) and context.is_written(key):
        yield context.note(
            "allgather-bucket-size",
            key,
            "changes neither memory nor speed: with this torch, weights are all-gathered in place",
        )


def unmanaged_accumulation(context: Context) -> Iterator[Finding]:
    """engine.py:2027-2036."""
    if context.flag("managed_gradient_accumulation"):
        return
    reasons = {
        "overlap_comm below stage 2": context.stage < 2 and context.flag(ZERO + "overlap_comm"),
        "DeepCompile": context.flag("compile.deepcompile"),
    }
    for reason, present in reasons.items():
        if present:
            yield context.error(
                "unmanaged-accumulation",
                "managed_gradient_accumulation",
                f"AssertionError: false is not supported with {reason}",
                "delete it",
            )


def clipping_by_default(context: Context) -> Iterator[Finding]:
    """runtime/constants.py:203."""
    if not context.document.has("gradient_clipping"):
        yield context.note(
            "default-clipping",
            "gradient_clipping",
            "gradients are clipped to norm 1.0, DeepSpeed 0.19's default (older versions: none)",
            'add "gradient_clipping": 0 to switch it off',
        )


RULES: tuple[Rule, ...] = (
    sum_instead_of_mean,
    no_grad_norm,
    scaling_with_reduce_scatter,
    odd_allgather_bucket,
    allgather_bucket_is_idle,
    unmanaged_accumulation,
    clipping_by_default,
)
