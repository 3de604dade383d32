"""The optimizer that the Trainer brings: whether DeepSpeed can step it, and what becomes of it."""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.config import engine
from zero_sizer.config.context import Context, Rule
from zero_sizer.findings import Direction, Finding
from zero_sizer.optimizers import selection, trainer
from zero_sizer.optimizers.table import FUSED_ADAM

_OTHER = "take adamw_torch_fused, or name an optimizer in the config"


def brought_by_the_trainer(context: Context) -> Iterator[Finding]:
    """The optimizer of ``optim`` under DeepSpeed's wrappers (shown on the engine, 0.19.8)."""
    name = context.workload.optim
    origin = context.workload.origins.get("optim", "--optim")
    if name is None:
        yield from _default(context)
        return
    if context.document.has("optimizer"):
        if not origin.startswith("default of"):
            message = f"{origin} says {name}, and the config's own optimizer is used instead"
            yield context.note("optim-ignored", "optimizer", message)
        return
    swaps = engine.offloads_optimizer(context) and context.flag("zero_force_ds_cpu_optimizer")
    if swaps:
        yield from _swapped(context, name, origin)
        return
    cause, message = trainer.REFUSED.get(name, ("", ""))
    has_masters = bool(context.stage) or engine.model_dtype(context) not in ("", "fp32")
    fails = {trainer.FLAT: bool(context.stage), trainer.MASTERS: has_masters}.get(cause, True)
    if message and fails:
        yield context.error("trainer-optimizer", "optim", f"{message} ({origin}: {name})", _OTHER)
    if name == "adagrad" and engine.uses_zero(context) and _has_two_groups(context):
        yield context.error(
            "trainer-optimizer",
            "optim",
            "IndexError in the first backward: the Trainer makes two groups of parameters, and "
            f"ZeRO makes Adagrad anew with one ({origin}: {name})",
            'name it in the config instead: "optimizer": {"type": "Adagrad"}',
        )
    yield from _about_its_memory(context, name)


def _about_its_memory(context: Context, name: str) -> Iterator[Finding]:
    """States in unified memory, and a step whose kernels are compiled."""
    if name.startswith("paged_"):
        yield context.note(
            "paged-states",
            "optim",
            f"{name} keeps large states in unified memory, which is counted on the host; the "
            "driver moves pages to the GPU where it has room",
        )

    row = trainer.row(name, swaps=False)
    if row is not None and row.is_compiled:
        found = context.warning(
            "optimizer-compiled",
            "optim",
            f"torch.compile makes the kernels of {name}'s step: what they hand to one another is "
            "not counted",
        )
        yield replace(found, direction=Direction.COST, device="gpu")


def _default(context: Context) -> Iterator[Finding]:
    """The assumption that a Trainer runs the config."""
    if context.document.has("optimizer") or engine.offloads_optimizer(context):
        return
    yield context.note(
        "as-the-trainer",
        "optimizer",
        "the config has none: torch's fused AdamW is counted, as the Hugging Face Trainer brings",
        "give --optim",
    )


def built_by_the_trainer(context: Context) -> Iterator[Finding]:
    """The assumption that weights are partitioned as the model is built."""
    if context.stage != 3 or context.workload.zero_init is not None:
        return
    if context.model is None or context.model.quantization is not None:
        return
    yield context.note(
        "assumed-zero-init",
        "--zero-init",
        "the model is taken to be built under zero.Init; a script that loads it before it makes "
        "TrainingArguments puts it whole on each GPU",
        "give --zero-init or --no-zero-init",
    )


def _swapped(context: Context, name: str, origin: str) -> Iterator[Finding]:
    """accelerate's ``map_pytorch_optim_to_deepspeed``."""
    row = trainer.row(name, swaps=True)
    own = row.name if row is not None else ""
    if not name.startswith("adamw_torch") and not origin.startswith("default of"):
        yield context.note(
            "optim-swapped",
            "optim",
            f"{origin} {name} becomes {own}: accelerate puts DeepSpeed's own in its place under "
            "optimizer offload",
            'set "zero_force_ds_cpu_optimizer": false to keep it',
        )


def _has_two_groups(context: Context) -> bool:
    """True if the Trainer decays some of what is trained and not the rest."""
    if context.model is None:
        return True
    return len(selection.trainer_groups(FUSED_ADAM, context.model)) > 1


RULES: tuple[Rule, ...] = (brought_by_the_trainer, built_by_the_trainer)
