"""Which activations a job has: a profile's variant, an adapter's, or the closed form."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from zero_sizer.activations import (
    block_sizes,
    clamps,
    loss,
    masks,
    names,
    shared_inputs,
)
from zero_sizer.activations import (
    checkpointing as checkpoints,
)
from zero_sizer.activations import (
    closed_form as fallback,
)
from zero_sizer.activations.checkpointing import Inputs
from zero_sizer.activations.levels import depths_of
from zero_sizer.activations.masks import Mask
from zero_sizer.activations.store import Asked, load_setup
from zero_sizer.activations.variants import base_variant, precision_of, profile_of, variant_of
from zero_sizer.config import workload
from zero_sizer.config.workload import DEEPSPEED, NON_REENTRANT, REENTRANT
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.recurrence import beyond_closed_form
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.units import DType, num_bytes
from zero_sizer.zero.wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from zero_sizer.activations.levels import MicroStep
    from zero_sizer.models.spec import ModelSpec

_UNKNOWN = 2**60


@derived
def activations_of(plan: Plan) -> MicroStep:
    """One micro step's activations: from a profile, of the base if need be, or in closed form."""
    step = _with_usual_loss(plan)
    step = _with_loss(plan, step) or step
    if _clamps(plan) and not is_closed_form(plan):
        step = clamps.clamped(step, checkpointed_input(plan))
    if plan.wrapper is Wrapper.ZERO3 and plan.autocast_dtype is None and plan.model.adapter is None:
        tokens = plan.micro_batch * plan.seq_len
        step = shared_inputs.apart(step, plan.model, tokens, plan.model_dtype)
    mask = mask_of(plan)
    if mask is None or not mask.shared:
        return step
    how = plan.checkpointing_how
    return masks.masked(step, mask, how.recomputes if plan.checkpointing else None)


def _clamps(plan: Plan) -> bool:
    """Whether hidden states are clamped: under autocast they are in fp32."""
    is_fp16 = plan.model_dtype is DType.FP16 and plan.autocast_dtype is None
    return is_fp16 and plan.model.arch.family in clamps.FAMILIES


def in_closed_form(plan: Plan, checkpointing: bool | None = None) -> MicroStep:
    """One micro step by formula, whatever profile there is; checkpointed as the plan says."""
    return fallback.step_activations(
        plan.model,
        loss_sizes(plan),
        seq_len=plan.seq_len,
        checkpointing=plan.checkpointing if checkpointing is None else checkpointing,
        attention=plan.attention,
        weight_dtype=plan.model_dtype,
    )


def is_closed_form(plan: Plan) -> bool:
    """True if no profile of the model or of its base says what the blocks keep."""
    return traced_activations(plan) is None and adapted_activations(plan) is None


def closed_form_error(plan: Plan) -> block_sizes.Error:
    """How far the closed form may be off: of one block at a time where blocks are recomputed."""
    arch, dtype = plan.model.arch, plan.autocast_dtype or plan.model_dtype
    eager = plan.attention == "eager"
    sizes_of = {"tokens": plan.micro_batch * plan.seq_len, "seq_len": plan.seq_len}
    one = block_sizes.block_bytes(arch, dtype=dtype, eager=eager, **sizes_of)
    scores = block_sizes.score_bytes(arch, dtype=dtype, **sizes_of) if eager else 0
    layers = max(block_sizes.num_layers(arch), 1)
    kept = max(round(layers * (1 - recomputed_share(plan))), 1)
    return block_sizes.error(arch, kept * one, dtype, kept_scores=kept * scores, scores=scores)


def error_above(plan: Plan) -> int:
    """Bytes that activations may take beyond the prediction; beyond any memory where nobody knows.

    A closed form counts tokens of one stack: it says nothing about images, frames and latents, nor
    of layers that carry a state along the sequence or pick the tokens that they attend to.
    """
    if not is_closed_form(plan):
        return 0
    is_known = plan.feed is None and not beyond_closed_form(plan.model)
    return closed_form_error(plan).above if is_known else _UNKNOWN


def knows_loss(plan: Plan) -> bool:
    """True if the loss that the plan names is known of its model."""
    if plan.loss == workload.TRANSFORMERS:
        return True
    return _with_loss(plan, _with_usual_loss(plan)) is not None


def _with_usual_loss(plan: Plan) -> MicroStep:
    return (
        traced_activations(plan)
        or adapted_activations(plan)
        or _checkpointed(plan, lambda on: in_closed_form(plan, on))
    )


def _with_loss(plan: Plan, step: MicroStep) -> MicroStep | None:
    if plan.loss == workload.TRANSFORMERS:
        return step
    # Liger copies the head's weight for every chunk, torch casts logits before its cross entropy
    casts = plan.loss in workload.CASTS and plan.autocast_dtype is not None
    if casts or plan.model.arch.decoder_layers:
        return None
    return loss.computed_by(plan.loss, step, loss_sizes(plan))


def loss_sizes(plan: Plan) -> loss.Sizes:
    """Sizes that the loss of one micro step is computed of."""
    arch = plan.model.arch
    return loss.Sizes(
        tokens=plan.micro_batch * plan.seq_len,
        vocab=arch.vocab or 0,
        hidden=arch.hidden or 0,
        dtype=plan.autocast_dtype or plan.model_dtype,
        trains_head=loss.trains_head(plan.model),
    )


def traced_activations(plan: Plan) -> MicroStep | None:
    """Activations from the profile alone; None where there is none for this job."""
    variant = variant_of(plan)
    return _mixed(plan, lambda recomputes: _evaluated(plan, plan.model, variant, recomputes))


def adapted_activations(plan: Plan) -> MicroStep | None:
    """An estimate for a model with an adapter from its base's profile; None without one."""
    base = plan.model.base
    if base is None:
        return None
    from zero_sizer.activations import changed_model  # most jobs train the model as it is
    from zero_sizer.activations.lora import Sizes

    variant = base_variant(plan)

    def adapt(recomputes: bool) -> MicroStep:
        attention = _attention_of(plan, base, variant)
        dtype = plan.autocast_dtype or plan.model_dtype
        found = Sizes(
            tokens=plan.micro_batch * plan.seq_len,
            dtype=dtype,
            trained=plan.autocast_dtype or sizes.trained_dtype(plan),
            held=plan.model_dtype,
            built=plan.built_dtype,
            raw=plan.autocast_dtype is not None and plan.saves_linear_inputs,
        )
        how = changed_model.How(
            sizes=found,
            recomputes=recomputes,
            saves_inputs=plan.saves_linear_inputs,
            keeps_outputs=attention != "eager",
            is_flash=_is_flash(plan, attention),
            opens=plan.checkpointing and _opens_inputs(plan.model),
            scatters=plan.feed is not None and plan.feed.taken > 0,
        )
        step = _evaluated(plan, base, variant, recomputes)
        ungraded = None
        if not recomputes and not how.opens:
            with suppress(UnsupportedError, InputError):  # traced on demand, as the job runs
                ungraded = _evaluated(plan, base, variant, True)
        return changed_model.with_changes(step, plan.model, how, ungraded)

    return _mixed(plan, adapt)


def _attention_of(plan: Plan, model: ModelSpec, variant: str) -> str:
    """Attention that runs: some classes have eager's alone, whatever is asked for."""
    profile = profile_of(plan, model)
    if profile is None:
        return plan.attention
    known = variant if variant in profile.attentions else precision_of(plan)
    return profile.attention_for(known, plan.attention)


def _is_flash(plan: Plan, attention: str) -> bool:
    """Whether flash attention's kernel runs, which takes neither fp32 nor a mask."""
    if attention != "sdpa":
        return attention == "flash"
    dtype = plan.autocast_dtype or plan.model_dtype
    return dtype is not DType.FP32 and _makes_no_mask(plan)


def _opens_inputs(model: ModelSpec) -> bool:
    """Whether checkpointing makes what comes out of the input embedding require a gradient.

    transformers 5.23 modeling_utils.py:3181-3189, and peft.
    """
    return model.adapter is not None or bool(model.hf_config)


def _mixed(plan: Plan, step_of: Callable[[bool], MicroStep]) -> MicroStep | None:
    """Blocks recomputed as the plan says, from steps in which all are or none is."""
    try:
        step = _checkpointed(plan, step_of)
        names.check(plan.model, step)
    except (UnsupportedError, InputError):  # too shallow, too long, or an attention it has not
        return None
    return step


def _checkpointed(plan: Plan, evaluate: Callable[[bool], MicroStep]) -> MicroStep:
    """The variant that is meant, of the model's step with and without checkpointing."""
    step = evaluate(plan.checkpointing)
    how, inputs = plan.checkpointing_how, inputs_of(plan)
    if not plan.checkpointing or (how.takes_all and inputs is None):
        return step
    plain = evaluate(False)
    if not how.takes_all:
        step = checkpoints.mixed(step, plain, how.recomputes)
    if inputs is not None:
        step = checkpoints.placed(step, plain, how.recomputes, inputs)
    return step


@derived
def num_recomputed(plan: Plan) -> int:
    """Checkpointed blocks."""
    if not plan.checkpointing:
        return 0
    return checkpoints.num_recomputed(activations_of(plan), plan.checkpointing_how.recomputes)


@derived
def inputs_of(plan: Plan) -> Inputs | None:
    """See ``checkpoints.Inputs``.

    torch's reentrant checkpoint is like DeepSpeed's with its section off. transformers' offload
    copies each input to the host when it is saved (torch.autograd.graph.save_on_cpu). DeepSpeed's
    cpu_checkpointing keeps the newest and the one being copied
    (runtime/activation_checkpointing/offload_activations.py:150-175); with partition_activations
    it clones each input and copies that, blocking (checkpointing.py:397-445).
    """
    how, size = plan.checkpointing_how, checkpointed_input(plan)
    if not plan.checkpointing or (how.by == NON_REENTRANT and not how.offload):
        return None
    if how.by == DEEPSPEED:
        partitions = plan.partition_activations
        return Inputs(
            num_bytes=size,
            reentrant=True,
            leave=plan.cpu_checkpointing,
            newest=0 if partitions else 2,
            cloned=partitions and not plan.cpu_checkpointing,
            reserved=0 if plan.cpu_checkpointing or not partitions else plan.contiguous_checkpoints,
        )
    return Inputs(
        num_bytes=size,
        reentrant=how.by == REENTRANT,
        leave=how.offload,
        kept=how.by == REENTRANT or not _normalizes_a_copy(plan),
        held_by_model=how.offload and plan.autocast_dtype is None,
    )


def _normalizes_a_copy(plan: Plan) -> bool:
    """Whether a block saves an fp32 copy of its input, so that the input itself can go."""
    if not plan.is_16bit:
        return False
    return any(t.module_type.endswith(("RMSNorm", "T5LayerNorm")) for t in plan.model.parameters)


@derived
def mask_of(plan: Plan) -> Mask | None:
    """Bytes that padded or packed sequences add; None where nobody measured it.

    Packed ones reach flash attention as one row with the places where sequences begin: nothing is
    added. eager attention of a decoder makes its mask whatever the sequences are.
    """
    if plan.sequences == masks.EQUAL or (plan.sequences, plan.attention) == (
        masks.PACKED,
        "flash",
    ):
        return Mask()
    known = plan.model.arch.family in masks.TRACED and plan.autocast_dtype is None
    if plan.attention == "eager" and known:
        return Mask()
    size = (plan.model.arch, plan.micro_batch, plan.seq_len, plan.model_dtype)
    if not known or not plan.is_16bit or plan.attention == "eager":
        return None
    if plan.attention == "flash":
        return masks.flash_copies(*size)
    return masks.sdpa_mask(*size) if _makes_no_mask(plan) else None


def _makes_no_mask(plan: Plan) -> bool:
    """Whether sdpa runs as flash attention does: a window of attention would need a mask."""
    model, variant = plan.model.base or plan.model, precision_of(plan)
    profile = profile_of(plan, model)
    if profile is None:
        return False
    try:
        flash, sdpa = (
            profile.evaluate(
                variant,
                profile.attention_for(variant, kind),
                plan.micro_batch,
                plan.seq_len,
                depths=depths_of(model, profile.depths),
            )
            for kind in ("flash", "sdpa")
        )
    except (UnsupportedError, InputError):
        return False
    return flash.saved == sdpa.saved


@derived
def wanted(plan: Plan) -> tuple[Asked, ...]:
    """Setups of the model, or of its base, that the activations are made of."""
    variant = variant_of(plan) if plan.model.base is None else base_variant(plan)
    found = [Asked(variant, plan.attention, plan.checkpointing)]
    takes_all = plan.checkpointing_how.takes_all and inputs_of(plan) is None
    if plan.checkpointing and not takes_all:
        found.append(Asked(variant, plan.attention, False))
    return tuple(found)


def _evaluated(plan: Plan, model: ModelSpec, variant: str, recomputes: bool) -> MicroStep:
    profile = profile_of(plan, model)
    if profile is None:
        asked = Asked(variant, plan.attention, recomputes)
        profile = load_setup(model, plan.feed, asked, (plan.micro_batch, plan.seq_len))
    if profile is None:
        raise UnsupportedError(f"{model.name} has no profile")
    if model.base is None and variant not in profile.attentions:
        variant = precision_of(plan)  # there ZeRO-3's linear layers do as torch's
    return profile.evaluate(
        variant,
        profile.attention_for(variant, plan.attention),
        plan.micro_batch,
        plan.seq_len,
        checkpointing=recomputes,
        depths=depths_of(model, profile.depths),
    )


@derived
def recomputed_share(plan: Plan) -> float:
    """Checkpointed blocks among all."""
    if not plan.checkpointing or plan.checkpointing_how.takes_all:
        return float(plan.checkpointing)
    blocks = sum(part.count for part in activations_of(plan).parts if part.blocks)
    return num_recomputed(plan) / blocks if blocks else 1.0


@derived
def checkpointed_input(plan: Plan) -> int:
    """Bytes of one checkpointed block's input."""
    width = plan.model.arch.hidden or 0
    return num_bytes(plan.micro_batch * plan.seq_len * width, plan.model_dtype)
