"""ZenFlow and SuperOffload: when DeepSpeed refuses or forgets them."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import OFFLOAD_OPTIMIZER, ZERO, Context, Rule
from zero_sizer.config.keys import table
from zero_sizer.findings import Finding

SECTION = ZERO + "zenflow"
_SELECTIVE = "torch.optim.adamw.AdamW"  # what ZenFlowSelectiveAdamW hands its arguments to


def without_offload(context: Context) -> Iterator[Finding]:
    """zenflow_stage_1_and_2.py:116; stage 3 does not look."""
    if not context.flag(SECTION) or engine.offloads_optimizer(context):
        return
    remedy = 'add "offload_optimizer": {"device": "cpu"}'
    if engine.uses_zero12(context):
        message = "ValueError: ZenFlow needs the optimizer offloaded to the host"
        yield context.error("zenflow-offload", SECTION, message, remedy)
    elif context.stage == 3:
        message = "ZenFlow is meant for an offloaded optimizer; stage 3 does not check it"
        yield context.warning("zenflow-offload", SECTION, message, remedy)


def unknown_to_optimizer(context: Context) -> Iterator[Finding]:
    """Only the ZeRO optimizers know ZenFlow; the engine asks whatever it got."""
    if not context.flag(SECTION) or engine.uses_zero(context):
        return
    optimizer = "BF16_Optimizer" if context.stage else "an optimizer without ZeRO"
    remedy = "use stage 1 to 3 and delete data_types.grad_accum_dtype"
    sequential = engine.optimizer_class(context) == "ZenFlowCPUAdam" and not context.flag(
        f"{SECTION}.overlap_step"
    )
    if sequential and not context.stage and engine.model_dtype(context) in ("fp16", "bf16"):
        message = f"TypeError: {optimizer} steps ZenFlow's Adam without the step's number"
        yield context.error("zenflow-stage", SECTION, message, remedy)
    else:
        message = f"AttributeError in the first step: {optimizer} knows no ZenFlow"
        yield context.error("zenflow-stage", SECTION, message, remedy)


def intervals(context: Context) -> Iterator[Finding]:
    """zenflow/engine.py:34-63."""
    if not context.flag(SECTION):
        return
    strategy = context.text(f"{SECTION}.select_strategy")
    select, update = (context.number(f"{SECTION}.{n}_interval") for n in ("select", "update"))
    key = f"{SECTION}.select_interval"
    if strategy == "auto" and select is not None:
        message = "Warning, raised as an exception: the auto strategy sets the interval itself"
        yield context.error("zenflow-interval", key, message, 'write "auto"')
    elif strategy in ("step", "epoch") and select is None:
        message = f"ValueError: strategy {strategy} needs a number"
        yield context.error("zenflow-interval", key, message, "give a number of steps or epochs")
    elif strategy == "step" and select and update is not None and select < update:
        message = f"ValueError: {select:g} is less than update_interval {update:g}"
        yield context.error("zenflow-interval", key, message, "select no more often than update")


def offload_needs_overlap(context: Context) -> Iterator[Finding]:
    """zenflow_stage_1_and_2.py:76, engine_stage3.py:101."""
    key = f"{SECTION}.offload"
    offloaded = engine.uses_zero(context) and context.flag(SECTION) and context.flag(key)
    if offloaded and not context.flag(ZERO + "overlap_comm"):
        yield context.error(
            "zenflow-overlap",
            key,
            "AssertionError: offloading the selected states needs overlap_comm",
            f"set {ZERO}overlap_comm",
        )


def optimizer_arguments(context: Context) -> Iterator[Finding]:
    """zenflow_stage_1_and_2.py:81: optimizer.params go to torch's AdamW as they are."""
    if not (context.flag(SECTION) and engine.uses_zero12(context)):
        return
    if not context.text("optimizer.type"):
        return
    params = context.mapping("optimizer.params")
    known = table().optimizer_classes[_SELECTIVE]
    if context.document.get("optimizer.params") is None:
        message = "TypeError: ZenFlow needs optimizer.params, even if empty"
        yield context.error("zenflow-optimizer", "optimizer.params", message, 'add "params": {}')
    for name in params:
        if name not in known:
            message = "TypeError: ZenFlow hands it to torch's AdamW, which knows no such argument"
            key = f"optimizer.params.{name}"
            yield context.error("zenflow-optimizer", key, message, "delete it")


def accumulation_replaced(context: Context) -> Iterator[Finding]:
    """zenflow/engine.py:69."""
    steps = context.number("gradient_accumulation_steps") or 1
    if context.flag(SECTION) and context.stage and steps > 1:
        yield context.warning(
            "zenflow-accumulation",
            "gradient_accumulation_steps",
            "replaced: ZenFlow accumulates over its own update_interval",
            f"set {SECTION}.update_interval",
        )


def super_offload(context: Context) -> Iterator[Finding]:
    """engine.py:2749; superoffload_stage3.py."""
    key = OFFLOAD_OPTIMIZER + "super_offload"
    if not context.flag(key):
        return
    if context.stage != 3:
        yield context.warning(
            "ignored-at-stage",
            key,
            f"ignored at stage {context.stage}: SuperOffload is part of stage 3",
            "use stage 3, or delete it",
        )
    elif context.optimizer_device != "cpu":
        yield context.warning(
            "super-offload-device",
            key,
            f"SuperOffload is meant for device cpu, not {context.optimizer_device}",
            f"set {OFFLOAD_OPTIMIZER}device to cpu",
        )


RULES: tuple[Rule, ...] = (
    without_offload,
    unknown_to_optimizer,
    intervals,
    offload_needs_overlap,
    optimizer_arguments,
    accumulation_replaced,
    super_offload,
)
