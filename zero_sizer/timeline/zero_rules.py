"""From a plan to what ZeRO brings to forward and backward: gathering, and rules of reduction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from zero_sizer.config.workload import NON_REENTRANT
from zero_sizer.hardware.device import Device
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import hpz_ranks
from zero_sizer.plan.plan import Plan, derived, derived_of_rank
from zero_sizer.timeline.autocast_rules import _within_autocast, communicated_apart
from zero_sizer.timeline.overlay import Zero, interned
from zero_sizer.timeline.reduction_rules import rules_of, share_of
from zero_sizer.util.identity import Identity
from zero_sizer.zero import leaf_modules
from zero_sizer.zero.gradient_flow import Tensors
from zero_sizer.zero.leaf_modules import Found, LeafModules
from zero_sizer.zero.secondary import NONE, Secondary
from zero_sizer.zero.swapping import Swapped
from zero_sizer.zero.trace import Known, Limits
from zero_sizer.zero.wrapper import Wrapper


@derived_of_rank
def zero_of(plan: Plan) -> Zero:
    """Rules that ZeRO brings to forward and backward of a step's last micro step."""
    secondary = _secondary(plan)
    gathers = plan.wrapper is Wrapper.ZERO3 and (sizes.gathers_copies(plan) or secondary.ranks)
    # a gathered parameter that is this rank's partition itself takes nothing
    itemsizes = (
        sizes.itemsizes(plan) if sizes.gathers_copies(plan) else (0,) * len(sizes.itemsizes(plan))
    )
    zero = Zero(
        **_on_any_rank(plan),
        itemsizes=itemsizes,
        gather_itemsizes=_gather_itemsizes(plan) if sizes.gathers_copies(plan) else itemsizes,
        ranks=plan.dp_world_size if gathers else 0,
        secondary=secondary,
        share=share_of(plan),
        swapped=swapped_of(plan, Known.EVERYTHING),
    )
    return interned(zero)


@derived
def _on_any_rank(plan: Plan) -> Mapping[str, Any]:
    """Fields of ``Zero`` that depend neither on the rank nor on how many there are."""
    return {
        "tensors": Tensors(plan.group_indices, sizes.numels(plan), communicated_apart(plan)),
        "persistent": sizes.is_persistent(plan),
        "kept": _kept_gathers(plan),
        "recomputed": _kept_recomputed(plan),
        "lent": frozen_of(Identity(plan.model)) if plan.checkpointing else frozenset(),
        "views": _views(plan),
        "is_parked": plan.param_device is not Device.GPU,
        "limits": limits_of(plan, Known.EVERYTHING),
        "rules": rules_of(plan),
    }


def limits_of(plan: Plan, known: Known) -> Limits:
    """Limits of gathering where DeepSpeed knows so much; all that is early needs the order."""
    is_traced = known is not Known.NOTHING
    return Limits(
        prefetch_bucket_size=plan.prefetch_bucket_size if is_traced else 0,
        max_live_parameters=plan.max_live_parameters,
        max_reuse_distance=plan.max_reuse_distance if is_traced else 0,
    )


def swapped_of(plan: Plan, known: Known) -> Swapped | None:
    """Weights that are read from NVMe in a micro step.

    The optimizer step gathers what stays outside of the coordinator, so that their buffers stay
    lent (stage3.py:2840, partition_parameters.py:1706).
    """
    if plan.wrapper is not Wrapper.ZERO3 or plan.param_device is not Device.NVME:
        return None
    is_read, stays = sizes.is_read_from_nvme(plan), sizes.is_persistent(plan)
    if not any(is_read):
        return None
    both = (i for i, rows in enumerate(zip(is_read, stays, strict=True)) if all(rows))
    lent = frozenset(both) if known is Known.EVERYTHING else frozenset[int]()
    return Swapped(is_read, plan.param_buffer_count, stays, lent)


def _gather_itemsizes(plan: Plan) -> tuple[int, ...]:
    """Bytes per element of each parameter while it is gathered (partition_parameters.py:56-58).

    autocast's are cast for that; one rank gathers nothing (NoGatherHandle).
    """
    if plan.autocast_dtype is None or plan.dp_world_size == 1:
        return sizes.itemsizes(plan)
    within, cast = _within_autocast(Identity(plan.model)), plan.autocast_dtype.itemsize
    return tuple([cast if i in within else size for i, size in enumerate(sizes.itemsizes(plan))])


def _secondary(plan: Plan) -> Secondary:
    """What hpZ keeps: frozen parameters' always, all from an earlier micro step of the same step.

    Those on the host are entries of the ledger, as are all that are there from the start.
    """
    group = hpz_ranks(plan)
    if plan.wrapper is not Wrapper.ZERO3 or not group:
        return NONE
    made = (
        frozenset(range(len(sizes.numels(plan))))
        if plan.accumulates
        else frozen_of(Identity(plan.model))
    )
    parked = plan.param_device is not Device.GPU
    itemsizes = tuple(
        [0 if parked or i in made else size for i, size in enumerate(sizes.itemsizes(plan))]
    )
    return Secondary(group, itemsizes, made)


@lru_cache(maxsize=64)
def frozen_of(model: Identity) -> frozenset[int]:
    """Parameters that are not trained."""
    return frozenset(i for i, tensor in enumerate(model.of.parameters) if not tensor.trainable)


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
# stacked as the product takes them
_AS_MULTIPLIED = ("GptOssExperts", "Llama4TextExperts", "AriaExperts")


def _kept_gathers(plan: Plan) -> frozenset[int]:
    """What backward refers to by another tensor than the parameter, which DeepSpeed cannot free.

    Packed weights, which a product saves beside autograd (bitsandbytes 0.50.2
    autograd/_functions.py, MatMul4Bit), and stacked experts, which it saves transposed
    (transformers 5.23 integrations/moe.py, unless ``is_transposed``; Llama 4 has a ``torch.bmm`` of
    its own), as Falcon's own linear layer does (modeling_falcon.py); recomputation saves them for
    its own block only. What autocast casts is a tensor of its own.
    """
    saves, model = not plan.checkpointing, Identity(plan.model)
    packed = frozenset[int]() if _forward_saves_nothing(plan) else _packed(model)
    return packed | _kept_of(model, saves, saves and plan.autocast_dtype is None)


def _forward_saves_nothing(plan: Plan) -> bool:
    """Whether blocks run forward without gradients, as under a reentrant checkpoint."""
    how = plan.checkpointing_how
    return plan.checkpointing and how.by != NON_REENTRANT and how.takes_all


@lru_cache(maxsize=64)
def _packed(model: Identity) -> frozenset[int]:
    """Weights of 4 bits."""
    if model.of.quantization is None or model.of.quantization.bits != 4:
        return frozenset()
    return frozenset(i for i, t in enumerate(model.of.parameters) if t.unpacked is not None)


@lru_cache(maxsize=64)
def _kept_of(model: Identity, experts: bool, transposed: bool) -> frozenset[int]:
    return frozenset(
        i
        for i, tensor in enumerate(model.of.parameters)
        if (experts and tensor.is_stacked and tensor.module_type not in _AS_MULTIPLIED)
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
    if not plan.checkpointing:
        return frozenset()
    if plan.checkpointing_how.by != NON_REENTRANT:
        return views | _packed(model) if _forward_saves_nothing(plan) else views
    is_cast = _runs_torchs_linear(plan) and plan.autocast_dtype is not None
    return (_trained(model) - _multiplied(model)) if is_cast else _trained(model) | views


@lru_cache(maxsize=64)
def _trained(model: Identity) -> frozenset[int]:
    return frozenset(i for i, tensor in enumerate(model.of.parameters) if tensor.trainable)
