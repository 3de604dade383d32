"""Activations, logits and loss."""

from zero_sizer.closed_form import layer_elements, num_layers
from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import BACKWARD, Moment
from zero_sizer.plan import Plan
from zero_sizer.units import DType

_PAPER = "arXiv:2205.05198 section 4.1"
_SAVED = frozenset({Moment.FORWARD, Moment.LOSS})


def _compute_dtype(plan: Plan) -> DType:
    return plan.autocast_dtype or plan.model_dtype


def _tokens(plan: Plan) -> int:
    return plan.micro_batch * plan.seq_len


def _layer_numel(plan: Plan) -> int:
    """Elements one layer saves for backward, masks apart."""
    layer = layer_elements(plan.model.arch, plan.seq_len)
    scores = layer.scores if plan.attention == "eager" else 0
    return _tokens(plan) * (layer.linear + scores)


def _logits_numel(plan: Plan) -> int:
    return _tokens(plan) * (plan.model.arch.vocab or 0)


ENTRIES = (
    Entry(
        name="saved_activations",
        category=Category.ACTIVATIONS,
        about="what every layer keeps for its backward",
        numel=lambda p: num_layers(p.model.arch) * _layer_numel(p),
        dtype=_compute_dtype,
        live=_SAVED,
        when=lambda p: not p.checkpointing,
        source=_PAPER,
    ),
    Entry(
        name="dropout_masks",
        category=Category.ACTIVATIONS,
        about="one byte per element that passed dropout",
        numel=lambda p: (
            num_layers(p.model.arch)
            * _tokens(p)
            * layer_elements(p.model.arch, p.seq_len).mask_bytes
        ),
        dtype=lambda p: DType.BOOL,
        live=_SAVED,
        when=lambda p: not p.checkpointing,
        source=_PAPER,
    ),
    Entry(
        name="checkpointed_inputs",
        category=Category.ACTIVATIONS,
        about="the input of every block, all that checkpointing keeps",
        numel=lambda p: num_layers(p.model.arch) * _tokens(p) * (p.model.arch.hidden or 0),
        dtype=_compute_dtype,
        live=_SAVED,
        when=lambda p: p.checkpointing,
        source="arXiv:2205.05198 section 5",
    ),
    Entry(
        name="recomputed_layer",
        category=Category.ACTIVATIONS,
        about="one block's activations, computed again for its backward",
        numel=_layer_numel,
        dtype=_compute_dtype,
        live=frozenset({Moment.REDUCE}),
        when=lambda p: p.checkpointing,
        source="arXiv:2205.05198 section 5",
    ),
    Entry(
        name="last_layer_in_backward",
        category=Category.ACTIVATIONS,
        about="activations of the layer whose backward runs last",
        numel=_layer_numel,
        dtype=_compute_dtype,
        live=frozenset({Moment.REDUCE}),
        when=lambda p: not p.checkpointing,
        source=_PAPER,
    ),
    Entry(
        name="logits",
        category=Category.ACTIVATIONS,
        about="the head's output",
        numel=_logits_numel,
        dtype=_compute_dtype,
        live=_SAVED,
        source="transformers loss/loss_utils.py:ForCausalLMLoss",
    ),
    Entry(
        name="logits_in_fp32",
        category=Category.ACTIVATIONS,
        about="logits upcast for the loss",
        numel=_logits_numel,
        dtype=lambda p: DType.FP32,
        live=_SAVED,
        when=lambda p: _compute_dtype(p) is not DType.FP32,
        source="transformers loss/loss_utils.py:ForCausalLMLoss",
    ),
    Entry(
        name="log_softmax",
        category=Category.ACTIVATIONS,
        about="log-probabilities that the loss saves",
        numel=_logits_numel,
        dtype=lambda p: DType.FP32,
        live=_SAVED,
        source="torch/nn/functional.py:cross_entropy",
    ),
    Entry(
        name="logits_gradient",
        category=Category.ACTIVATIONS,
        about="gradient of the loss with respect to the fp32 logits",
        numel=_logits_numel,
        dtype=lambda p: DType.FP32,
        live=BACKWARD - {Moment.REDUCE},
        source="torch/nn/functional.py:cross_entropy",
    ),
)
