"""From a plan to its timeline: which variant of the profile, which rules of reduction.

``Plan`` asks this module, so it knows plans only by name (``TYPE_CHECKING``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from zero_sizer import profiles
from zero_sizer.config.workload import DEEPSPEED, NON_REENTRANT, REENTRANT
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.identity import Identity
from zero_sizer.passes import adapted, checkpoints, fallback, masks
from zero_sizer.passes.checkpoints import Inputs
from zero_sizer.passes.layout import depths_of, layout_of
from zero_sizer.passes.masks import Mask
from zero_sizer.passes.overlay import Zero, interned
from zero_sizer.passes.series import BlockPeak, block_peaks
from zero_sizer.passes.timeline import Timeline, timeline
from zero_sizer.units import DType
from zero_sizer.zero import leaf_modules
from zero_sizer.zero.gather import Limits
from zero_sizer.zero.gradient_flow import Rules, Scheme, Tensors
from zero_sizer.zero.leaf_modules import Found, LeafModules
from zero_sizer.zero.reduction import Share
from zero_sizer.zero.wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from zero_sizer.models.spec import ModelSpec, Tensor
    from zero_sizer.passes.levels import MicroStep
    from zero_sizer.plan import Plan


_STACKED = 3


def timeline_of(plan: Plan) -> Timeline:
    """The highest points of forward and backward."""
    step = plan.step_activations
    return timeline(step, layout_of(plan.model, step, leaves_of(plan).modules), plan.zero)


def block_peaks_of(plan: Plan) -> list[BlockPeak]:
    """The highest point of every block in forward and backward, in order."""
    step = plan.step_activations
    return block_peaks(step, layout_of(plan.model, step, leaves_of(plan).modules), plan.zero)


def activations_of(plan: Plan) -> MicroStep:
    """One micro step's activations: from a profile, of the base if need be, or in closed form."""
    step = (
        traced_activations(plan)
        or adapted_activations(plan)
        or _checkpointed(plan, lambda on: _closed_form(plan, on))
    )
    mask = plan.mask
    if mask is None or not mask.shared:
        return step
    how = plan.checkpointing_how
    return masks.masked(step, mask, how.recomputes if plan.checkpointing else None)


def _closed_form(plan: Plan, checkpointing: bool) -> MicroStep:
    return fallback.step_activations(
        plan.model,
        batch=plan.micro_batch,
        seq_len=plan.seq_len,
        dtype=plan.autocast_dtype or plan.model_dtype,
        checkpointing=checkpointing,
        attention=plan.attention,
    )


def traced_activations(plan: Plan) -> MicroStep | None:
    """The same from the profile alone; None where there is none for this job."""
    variant = _variant(plan)
    return _mixed(plan, lambda recomputes: _evaluated(plan, plan.model, variant, recomputes))


def adapted_activations(plan: Plan) -> MicroStep | None:
    """An estimate for a model with an adapter from its base's profile; None without one."""
    base = plan.model.base
    if base is None:
        return None

    def adapt(recomputes: bool) -> MicroStep:
        return adapted.with_adapter(
            _evaluated(plan, base, _precision(plan), recomputes),
            plan.model,
            tokens=plan.micro_batch * plan.seq_len,
            dtype=plan.autocast_dtype or plan.model_dtype,
            trained=plan.autocast_dtype or plan.trained_dtype,
            recomputes=recomputes,
        )

    return _mixed(plan, adapt)


def _mixed(plan: Plan, step_of: Callable[[bool], MicroStep]) -> MicroStep | None:
    """Blocks recomputed as the plan says, from steps in which all are or none is."""
    try:
        return _checkpointed(plan, step_of)
    except (UnsupportedError, InputError):  # too shallow, too long, or an attention it has not
        return None


def _checkpointed(plan: Plan, evaluate: Callable[[bool], MicroStep]) -> MicroStep:
    """The variant that is meant, of the model's step with and without checkpointing."""
    step = evaluate(plan.checkpointing)
    how, inputs = plan.checkpointing_how, plan.inputs
    if not plan.checkpointing or (how.takes_all and inputs is None):
        return step
    plain = evaluate(False)
    if not how.takes_all:
        step = checkpoints.mixed(step, plain, how.recomputes)
    if inputs is not None:
        step = checkpoints.placed(step, plain, how.recomputes, inputs)
    return step


def num_recomputed(plan: Plan) -> int:
    """Checkpointed blocks."""
    if not plan.checkpointing:
        return 0
    return checkpoints.num_recomputed(plan.step_activations, plan.checkpointing_how.recomputes)


def inputs_of(plan: Plan) -> Inputs | None:
    """See ``checkpoints.Inputs``.

    torch's reentrant checkpoint is like DeepSpeed's with its section off. transformers' offload
    copies each input to the host when it is saved (torch.autograd.graph.save_on_cpu). DeepSpeed's
    cpu_checkpointing keeps the newest and the one being copied
    (runtime/activation_checkpointing/offload_activations.py:150-175); with partition_activations
    it clones each input and copies that, blocking (checkpointing.py:397-445).
    """
    how, size = plan.checkpointing_how, plan.checkpointed_input
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


def mask_of(plan: Plan) -> Mask | None:
    """What padded or packed sequences add; None where nobody measured it.

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
    model, variant = plan.model.base or plan.model, _precision(plan)
    profile = profiles.load(model)
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


def _evaluated(plan: Plan, model: ModelSpec, variant: str, recomputes: bool) -> MicroStep:
    profile = profiles.load(model)
    if profile is None:
        raise UnsupportedError(f"{model.name} has no profile")
    return profile.evaluate(
        variant,
        profile.attention_for(variant, plan.attention),
        plan.micro_batch,
        plan.seq_len,
        checkpointing=recomputes,
        depths=depths_of(model, profile.depths),
    )


def _variant(plan: Plan) -> str:
    """The precision, and what a model with frozen weights does otherwise at stage 3."""
    if plan.model.base is None:
        return _precision(plan)
    is_mixed = plan.autocast_dtype is None and plan.trained_dtype is not plan.model_dtype
    precision = "mixed" if is_mixed else _precision(plan)
    return f"{precision} zero3" if plan.saves_linear_inputs else precision


def _precision(plan: Plan) -> str:
    if plan.autocast_dtype is not None:
        return "autocast"
    return "fp32" if plan.model_dtype is DType.FP32 else "bf16"


def zero_of(plan: Plan) -> Zero:
    """What ZeRO brings to forward and backward."""
    scheme = _scheme(plan)
    attribute = plan.has_grad_accum_attribute
    itemsize = plan.grad_accum_dtype.itemsize if attribute else plan.trained_dtype.itemsize
    zero = Zero(
        tensors=Tensors(plan.group_indices, plan.numels),
        persistent=plan.is_persistent,
        kept=_kept_gathers(plan),
        itemsizes=plan.itemsizes,
        ranks=plan.dp_world_size if plan.wrapper is Wrapper.ZERO3 and plan.gathers_copies else 0,
        limits=Limits(
            prefetch_bucket_size=plan.prefetch_bucket_size,
            max_live_parameters=plan.max_live_parameters,
            max_reuse_distance=plan.max_reuse_distance,
        ),
        rules=_rules(plan, scheme, itemsize),
        share=_share(plan, scheme, itemsize),
    )
    return interned(zero)


def leaves_of(plan: Plan) -> Found:
    """The modules that stage 3 takes as a whole."""
    if plan.wrapper is not Wrapper.ZERO3:
        return leaf_modules.NONE
    return _leaves(Identity(plan.model), plan.leaf_modules)


@lru_cache(maxsize=64)
def _leaves(spec: Identity, wanted: LeafModules) -> Found:
    types = {tensor.module: tensor.module_type for tensor in spec.of.parameters}
    return leaf_modules.find(wanted, types, spec.of.arch.family)


def is_stacked(tensor: Tensor) -> bool:
    """Whether it holds all experts of a block: (experts, rows, columns)."""
    return "expert" in tensor.module and len(tensor.shape) == _STACKED


def _kept_gathers(plan: Plan) -> frozenset[int]:
    """What backward refers to by another tensor than the parameter, which DeepSpeed cannot free.

    Packed weights, which a product saves beside autograd (bitsandbytes 0.50.2
    autograd/_functions.py, MatMul4Bit), and stacked experts, which it saves transposed
    (transformers 5.23 integrations/moe.py); recomputation saves them for its own block only.
    """
    is_packed = plan.model.quantization is not None and plan.model.quantization.bits == 4
    tensors = enumerate(plan.model.parameters)
    return frozenset(
        i
        for i, tensor in tensors
        if (is_packed and tensor.unpacked is not None)
        or (is_stacked(tensor) and not plan.checkpointing)
    )


def _rules(plan: Plan, scheme: Scheme, itemsize: int) -> Rules:
    """See ``gradient_flow.Rules``; each line follows the feature file of its wrapper."""
    if scheme is Scheme.AFTER:  # knows no bucket of ZeRO's
        return Rules(scheme=scheme, itemsize=itemsize, adds_in_place=_adds_in_place(plan, scheme))
    buffered = plan.contiguous_gradients or plan.offloads_optimizer
    return Rules(
        scheme=scheme,
        itemsize=itemsize,
        bucket_itemsize=itemsize if buffered else 0,
        bucket_numel=plan.reduce_bucket_size,
        num_buckets=(2 if plan.overlap_comm else 1) * plan.num_comm_dtypes,
        adds_in_place=_adds_in_place(plan, scheme),
        buffers_held=plan.stage == 1 and plan.accumulates,
        frees_large=plan.stage != 1,
    )


def _share(plan: Plan, scheme: Scheme, itemsize: int) -> Share:
    """See ``reduction.Share``."""
    ranks = plan.dp_world_size
    cast = plan.comm_dtype.itemsize if plan.comm_dtype != plan.model_dtype else 0
    if scheme is Scheme.AFTER:  # every rank does the same
        return Share(held=_held(plan, scheme, itemsize), cast_itemsize=cast)
    return Share(
        ranks=ranks,
        rank=ranks - 1 if plan.rank is None else plan.rank,
        kept=_kept(plan),
        held=_held(plan, scheme, itemsize),
        cast_itemsize=cast,
        copies=plan.reduce_scatter and (plan.multi_rank_allreduce or scheme is Scheme.SCATTERED),
        offloads=plan.offloads_optimizer,
        align_tensors=plan.align_tensors,
    )


def _scheme(plan: Plan) -> Scheme:
    if plan.wrapper is Wrapper.ZERO3:
        return Scheme.SCATTERED
    if plan.wrapper is not Wrapper.ZERO12:
        return Scheme.AFTER
    return Scheme.HOOKED if plan.stage == 2 or plan.overlap_comm else Scheme.DEFERRED


def _kept(plan: Plan) -> int:
    """Bytes of this rank's reduced gradients (stage_1_and_2.py:1024-1045, 1259-1326)."""
    if plan.wrapper is not Wrapper.ZERO12:
        return 0
    if plan.has_compact_gradients:
        return 0 if plan.accumulates else plan.partition_numel * plan.grad_accum_dtype.itemsize
    return 0 if plan.offloads_optimizer else plan.gradient_numel * plan.itemsize


def _held(plan: Plan, scheme: Scheme, itemsize: int) -> int:
    """Bytes of gradients that earlier micro steps left."""
    if not plan.accumulates or scheme is Scheme.SCATTERED:
        return 0
    if scheme is Scheme.AFTER:
        return 0 if plan.immediate_grad_update else plan.num_trainable * itemsize
    if plan.stage == 1:
        return plan.num_trainable * itemsize
    if plan.has_compact_gradients:
        return plan.partition_numel * plan.grad_accum_dtype.itemsize
    return 0 if plan.offloads_optimizer else plan.gradient_numel * plan.itemsize


def _adds_in_place(plan: Plan, scheme: Scheme) -> bool:
    if plan.wrapper is Wrapper.BF16 and plan.immediate_grad_update:
        return True  # accumulated in fp32 and dropped, bf16_optimizer.py:707-715
    whole = scheme is Scheme.AFTER or plan.stage == 1
    return plan.accumulates and whole and scheme is not Scheme.SCATTERED
