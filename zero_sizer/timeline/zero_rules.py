"""From a plan to what ZeRO brings to forward and backward: gathering, and rules of reduction.

``Plan`` asks this module, so it knows plans only by name (``TYPE_CHECKING``).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from zero_sizer.config.workload import NON_REENTRANT
from zero_sizer.timeline.overlay import Zero, interned
from zero_sizer.units import DType
from zero_sizer.util.identity import Identity
from zero_sizer.zero import leaf_modules, muon, partition
from zero_sizer.zero.gather import Limits
from zero_sizer.zero.gradient_flow import Rules, Scheme, Tensors
from zero_sizer.zero.leaf_modules import Found, LeafModules
from zero_sizer.zero.reduction import Share
from zero_sizer.zero.secondary import NONE, Secondary, group_ranks
from zero_sizer.zero.wrapper import Wrapper

if TYPE_CHECKING:
    from zero_sizer.models.spec import ModelSpec
    from zero_sizer.plan.plan import Plan

_AUTOCAST_MODULES = {"Linear", "Conv1d", "Conv2d", "Conv3d"}


def zero_of(plan: Plan) -> Zero:
    """What ZeRO brings to forward and backward."""
    scheme = _scheme(plan)
    itemsize = _itemsize(plan)
    secondary = _secondary(plan)
    gathers = plan.wrapper is Wrapper.ZERO3 and (plan.gathers_copies or secondary.ranks)
    # a gathered parameter that is this rank's partition itself takes nothing
    itemsizes = plan.itemsizes if plan.gathers_copies else (0,) * len(plan.itemsizes)
    zero = Zero(
        tensors=Tensors(plan.group_indices, plan.numels, plan.communicated_apart),
        persistent=plan.is_persistent,
        kept=_kept_gathers(plan),
        recomputed=_kept_recomputed(plan),
        lent=_frozen(Identity(plan.model)) if plan.checkpointing else frozenset(),
        views=_views(plan),
        itemsizes=itemsizes,
        sent=_sent_itemsizes(plan) if plan.gathers_copies else itemsizes,
        ranks=plan.dp_world_size if gathers else 0,
        is_parked=plan.param_device.name != "GPU",
        secondary=secondary,
        limits=Limits(
            prefetch_bucket_size=plan.prefetch_bucket_size,
            max_live_parameters=plan.max_live_parameters,
            max_reuse_distance=plan.max_reuse_distance,
        ),
        rules=_rules(plan, scheme, itemsize),
        share=_share(plan, scheme, itemsize),
    )
    return interned(zero)


def earlier_zero_of(plan: Plan) -> Zero | None:
    """The same in the micro steps before the last, where gradients are kept that then go.

    With offload they are added up, on the host or in a buffer of fp32, but not cleared before the
    last (stage_1_and_2.py:2166-2176); stage 1 reduces in the last only.
    """
    if not (plan.accumulates and plan.offloads_optimizer and plan.zero.rules.clones_large):
        return None
    if plan.stage != 2:
        return None
    if not plan.zero.rules.is_large(plan.largest_tensor):
        return None  # nothing is kept: without the norms of the last step it is never higher
    share = replace(plan.zero.share, offloads=False, keeps_own_large=True)
    return interned(replace(plan.zero, share=share))


def first_zero_of(plan: Plan) -> Zero:
    """The same in the first micro step after an optimizer step, which dropped what it could."""
    made = plan.zero.secondary.made & _frozen(Identity(plan.model))
    return interned(replace(plan.zero, secondary=plan.zero.secondary._replace(made=made)))


def outside_autocast(model: ModelSpec) -> frozenset[int]:
    """Trained tensors that no module of autocast's list owns (torch_autocast.py:15-25,57-60).

    A tied embedding is the head's too.
    """
    return _outside_autocast(Identity(model))


@lru_cache(maxsize=64)
def _outside_autocast(model: Identity) -> frozenset[int]:
    within, parameters = _within_autocast(model), model.of.parameters
    return frozenset(i for i, t in enumerate(parameters) if t.trainable and i not in within)


@lru_cache(maxsize=64)
def _within_autocast(model: Identity) -> frozenset[int]:
    arch = model.of.arch
    head = (arch.vocab,) if arch.tied_embeddings else None
    return frozenset(
        i
        for i, tensor in enumerate(model.of.parameters)
        if tensor.module_type in _AUTOCAST_MODULES or tensor.shape[:1] == head
    )


def _sent_itemsizes(plan: Plan) -> tuple[int, ...]:
    """Bytes per element of each parameter while it is gathered (partition_parameters.py:56-58).

    autocast's are cast for that; one rank gathers nothing (NoGatherHandle).
    """
    if plan.autocast_dtype is None or plan.dp_world_size == 1:
        return plan.itemsizes
    within, cast = _within_autocast(Identity(plan.model)), plan.autocast_dtype.itemsize
    return tuple([cast if i in within else size for i, size in enumerate(plan.itemsizes)])


def _secondary(plan: Plan) -> Secondary:
    """What hpZ keeps: frozen parameters' always, all from an earlier micro step of the same step.

    Those on the host are entries of the ledger, as are all that are there from the start.
    """
    group = group_ranks(plan.hpz_partition_size, plan.dp_world_size)
    if plan.wrapper is not Wrapper.ZERO3 or not group:
        return NONE
    made = frozenset(range(len(plan.numels))) if plan.accumulates else _frozen(Identity(plan.model))
    parked = plan.param_device.name != "GPU"
    itemsizes = tuple([0 if parked or i in made else size for i, size in enumerate(plan.itemsizes)])
    return Secondary(group, itemsizes, made)


@lru_cache(maxsize=64)
def _frozen(model: Identity) -> frozenset[int]:
    return frozenset(i for i, tensor in enumerate(model.of.parameters) if not tensor.trainable)


def comm_dtypes(plan: Plan) -> tuple[DType, ...]:
    """Dtypes in which gradients are reduced, each with buckets of its own."""
    if plan.autocast_dtype is None:
        return (plan.comm_dtype,)
    apart = len(plan.communicated_apart)
    within = (plan.autocast_dtype,) if apart < len(plan.trainable) else ()
    return (*within, plan.trained_dtype) if apart else within


def leaves_of(plan: Plan) -> Found:
    """The modules that stage 3 takes as a whole."""
    if plan.wrapper is not Wrapper.ZERO3:
        return leaf_modules.NONE
    return _leaves(Identity(plan.model), plan.leaf_modules)


@lru_cache(maxsize=64)
def _leaves(spec: Identity, wanted: LeafModules) -> Found:
    types = {tensor.module: tensor.module_type for tensor in spec.of.parameters}
    return leaf_modules.find(wanted, types, spec.of.arch.family)


_TRANSPOSES = "FalconLinear"  # input @ weight.T, which is no torch.nn.functional.linear


def _kept_gathers(plan: Plan) -> frozenset[int]:
    """What backward refers to by another tensor than the parameter, which DeepSpeed cannot free.

    Packed weights, which a product saves beside autograd (bitsandbytes 0.50.2
    autograd/_functions.py, MatMul4Bit), and stacked experts, which it saves transposed
    (transformers 5.23 integrations/moe.py), as Falcon's own linear layer does (modeling_falcon.py);
    recomputation saves them for its own block only. What autocast casts is a tensor of its own.
    """
    saves = not plan.checkpointing
    return _kept_of(Identity(plan.model), saves, saves and plan.autocast_dtype is None)


@lru_cache(maxsize=64)
def _kept_of(model: Identity, experts: bool, transposed: bool) -> frozenset[int]:
    is_packed = model.of.quantization is not None and model.of.quantization.bits == 4
    return frozenset(
        i
        for i, tensor in enumerate(model.of.parameters)
        if (is_packed and tensor.unpacked is not None)
        or (experts and tensor.is_stacked)
        or (transposed and tensor.module_type == _TRANSPOSES)
    )


def _views(plan: Plan) -> frozenset[int]:
    """Weights that torch's own linear layers multiply by: they save the transposed one, a view.

    ATen/native/Linear.cpp. ZeRO-3's save the parameter itself (runtime/zero/linear.py:64), and a
    weight that autocast casts is a tensor of its own, an activation.
    """
    if not _runs_torchs_linear(plan) or plan.autocast_dtype is not None:
        return frozenset()
    return _multiplied(Identity(plan.model))


def _runs_torchs_linear(plan: Plan) -> bool:
    return plan.wrapper is Wrapper.ZERO3 and not plan.saves_linear_inputs


@lru_cache(maxsize=64)
def _multiplied(model: Identity) -> frozenset[int]:
    """Matrices of ``torch.nn.functional.linear``: no embedding but a tied one, no ``Conv1D``."""
    arch = model.of.arch
    head = (arch.vocab,) if arch.tied_embeddings else None
    return frozenset(
        i
        for i, tensor in enumerate(model.of.parameters)
        if tensor.unpacked is None
        and len(model.of.matrix_of(tensor)) == 2
        and (tensor.shape[:1] == head or not tensor.module_type.endswith(("Embedding", "Conv1D")))
    )


def _kept_recomputed(plan: Plan) -> frozenset[int]:
    """Trained weights: recomputation saves a detached tensor that shares what was gathered.

    torch 2.13 utils/checkpoint.py:1095; a frozen one is saved itself, and DeepSpeed empties it. A
    reentrant checkpoint has no such hook. A view shares what was gathered in any case, and of what
    torch's linear layers are handed under autocast they save the cast alone.
    """
    model, views = Identity(plan.model), _views(plan)
    if not plan.checkpointing or plan.checkpointing_how.by != NON_REENTRANT:
        return views if plan.checkpointing else frozenset()
    is_cast = _runs_torchs_linear(plan) and plan.autocast_dtype is not None
    return (_trained(model) - _multiplied(model)) if is_cast else _trained(model) | views


@lru_cache(maxsize=64)
def _trained(model: Identity) -> frozenset[int]:
    return frozenset(i for i, tensor in enumerate(model.of.parameters) if tensor.trainable)


def _rules(plan: Plan, scheme: Scheme, itemsize: int) -> Rules:
    """See ``gradient_flow.Rules``; each line follows the feature file of its wrapper."""
    if scheme is Scheme.AFTER:  # knows no bucket of ZeRO's
        return Rules(
            scheme=scheme,
            itemsize=itemsize,
            made_itemsize=itemsize,
            bucket_itemsize=_reduced_dtype(plan).itemsize,
            adds_in_place=_adds_in_place(plan, scheme),
            whole_groups=plan.wrapper is Wrapper.BF16,
        )
    return Rules(
        scheme=scheme,
        itemsize=itemsize,
        made_itemsize=plan.trained_dtype.itemsize,
        bucket_itemsize=itemsize if buffers_gradients(plan) else 0,
        bucket_numel=plan.reduce_bucket_size,
        num_buckets=(2 if plan.overlap_comm else 1) * len(comm_dtypes(plan)),
        adds_in_place=_adds_in_place(plan, scheme),
        buffers_held=plan.stage == 1 and plan.accumulates,
        keeps_large=plan.stage == 1,
        clones_large=plan.offloads_optimizer and scheme is not Scheme.SCATTERED,
    )


def buffers_gradients(plan: Plan) -> bool:
    """Whether the bucket has a buffer, which gradients larger than it go by."""
    return plan.contiguous_gradients or plan.offloads_optimizer


def _share(plan: Plan, scheme: Scheme, itemsize: int) -> Share:
    """See ``reduction.Share``."""
    ranks = plan.dp_world_size
    if scheme is Scheme.AFTER:  # every rank does the same
        return Share(held=_held(plan, scheme, itemsize), cast_itemsizes=_sent_copies(plan))
    is_compact = plan.wrapper is Wrapper.ZERO12 and plan.has_compact_gradients
    share = Share(
        ranks=ranks,
        held=0,
        cast_itemsizes=_sent_copies(plan),
        copies=plan.reduce_scatter and (plan.multi_rank_allreduce or scheme is Scheme.SCATTERED),
        offloads=plan.offloads_optimizer,
        master_itemsize=_cast_on_its_way(plan),
        brought_itemsize=plan.grad_accum_dtype.itemsize,
        part_itemsizes=_accumulated_copies(plan),
        casts_together=plan.optimizer_device.name == "NVME",
        is_compact=is_compact,
        # nothing clears them before the epilogue does, stage_1_and_2.py:2178-2182
        keeps_own_large=is_compact and plan.stage == 2 and not plan.offloads_optimizer,
        compact_itemsize=_accumulated_copies(plan)[0],
        align_tensors=plan.align_tensors,
        deals_tensors=plan.deals_tensors,
    )
    return on_rank(share, plan)


def on_rank(share: Share, plan: Plan) -> Share:
    """The share with all that ranks differ in."""
    return replace(
        share,
        rank=plan.rank,
        kept=_kept(plan),
        held=_held(plan, _scheme(plan), _itemsize(plan)),
        afterwards=_orthogonalized(plan),
    )


def _itemsize(plan: Plan) -> int:
    """Bytes per element of a gradient that waits for its reduction."""
    if plan.has_grad_accum_attribute:
        return plan.grad_accum_dtype.itemsize
    return plan.trained_dtype.itemsize


def _orthogonalized(plan: Plan) -> int:
    """Bytes while Muon makes its updates of reduced gradients, at the end of backward.

    stage_1_and_2.py:1036-1059, 2838-2875; with offload the step makes them.
    """
    if plan.wrapper is not Wrapper.ZERO12 or plan.offloads_optimizer:
        return 0
    dtype = plan.grad_accum_dtype if plan.has_grad_accum_attribute else plan.trained_dtype
    most = 0
    for number, row in enumerate(plan.group_optimizers):
        if row.newton_schulz:
            where = (plan.dp_world_size, plan.rank, plan.align_tensors, plan.itemsize)
            found = partition.pieces(plan.ordered(plan.groups[number]), *where)
            order = plan.flat_order[number]
            shapes = tuple(plan.model.parameters[order[piece.number]].shape for piece in found)
            most = max(most, muon.all_updates(shapes, dtype, row.newton_schulz))
    return most


def _sent(plan: Plan) -> tuple[DType, DType]:
    """Dtypes of communication; the second is of ``Tensors.apart`` (base_optimizer.py:393-397)."""
    if plan.autocast_dtype is None or plan.wrapper is Wrapper.NONE:
        return plan.comm_dtype, plan.comm_dtype
    return plan.autocast_dtype, plan.trained_dtype


def _sent_copies(plan: Plan) -> tuple[int, int]:
    """Bytes per element of the copies in those dtypes."""
    made = _reduced_dtype(plan)
    first, second = (dtype.itemsize if dtype is not made else 0 for dtype in _sent(plan))
    return first, second


def _reduced_dtype(plan: Plan) -> DType:
    """What is reduced: ``BF16_Optimizer`` hands over what it accumulated (engine.py:3795-3870).

    So does stage 1 where gradients accumulate apart from ``.grad`` (stage_1_and_2.py:1248-1257).
    """
    if plan.wrapper is Wrapper.BF16 or plan.has_grad_accum_attribute:
        return plan.grad_accum_dtype
    return plan.trained_dtype


def _accumulated_copies(plan: Plan) -> tuple[int, int]:
    """Bytes per element of the copies of what was reduced, in the dtype that is accumulated."""
    to = plan.grad_accum_dtype
    first, second = (to.itemsize if dtype is not to else 0 for dtype in _sent(plan))
    return first, second


def _cast_on_its_way(plan: Plan) -> int:
    """Bytes per element of the copy that is cast before it goes to the host."""
    is_cast = plan.offloads_optimizer and plan.master_dtype is not plan.grad_accum_dtype
    return plan.master_dtype.itemsize if is_cast else 0


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
    if plan.has_compact_gradients:  # stage 2 has it from the first micro step on
        is_held = plan.accumulates and plan.stage == 2
        return 0 if is_held else plan.partition_numel * plan.grad_accum_dtype.itemsize
    if plan.offloads_optimizer:
        return 0
    beside = 0 if plan.accumulates else _compact_bytes(plan)
    return plan.gradient_numel * plan.itemsize + beside


def compact_partitions(plan: Plan) -> tuple[int, ...]:
    """Partitions whose gradients lie in a buffer of their own: in fp32, and not Muon's."""
    if plan.grad_accum_dtype is not DType.FP32 or plan.model_dtype is DType.FP32:
        return ()
    rows = zip(plan.partitions, plan.group_optimizers, strict=True)
    return tuple(numel for numel, row in rows if not row.newton_schulz)


def _compact_bytes(plan: Plan) -> int:
    return sum(compact_partitions(plan)) * plan.grad_accum_dtype.itemsize


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
    if plan.offloads_optimizer:
        return 0
    return plan.gradient_numel * plan.itemsize + _compact_bytes(plan)


def _adds_in_place(plan: Plan, scheme: Scheme) -> bool:
    if plan.wrapper is Wrapper.BF16 and plan.immediate_grad_update:
        return True  # accumulated in fp32 and dropped, bf16_optimizer.py:707-715
    whole = scheme is Scheme.AFTER or plan.stage == 1
    return plan.accumulates and whole and scheme is not Scheme.SCATTERED
