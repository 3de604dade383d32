"""Savings of frozen layers: activations that are not kept.

A linear layer needs its input for its weight's gradient alone, an RMSNorm the normalized one;
other operators keep what they keep for the gradient of their input.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from zero_sizer.activations.changed_blocks import SAVED, Rules
from zero_sizer.activations.closed_regions import Closed
from zero_sizer.activations.lora import Sizes
from zero_sizer.activations.structure import ACTIVATION
from zero_sizer.models.spec import Tensor, widths_of
from zero_sizer.units import DType, num_bytes

# Their input is the attention's output, which flash and sdpa keep themselves.
_AFTER_ATTENTION = (
    "o_proj",
    "out_proj",
    "self_attention.dense",
    "attention.dense",
    "self_attn.dense",
    "attn.c_proj",
)
_AFTER_ACTIVATION = ("fc2", "dense_4h_to_h", "mlp.c_proj")  # relu keeps what it made
HELD_BY_MODEL = ""  # no module's word: the model's own forward holds it to its end


class Unsaved(NamedTuple):
    """A storage that is kept where every weight is trained, and not here.

    Attributes:
        num_bytes: its size.
        made: the word of ``runs`` after which it is not needed here, or ``HELD_BY_MODEL``.
        is_held: only where that step ends: the caller holds it until then.
        freed: the module with whose backward the base lets go of it.
        is_cast: autocast's, which the layer itself lets go of, before an adapter runs.
    """

    num_bytes: int
    made: str
    is_held: bool
    freed: str
    is_cast: bool = False


def unsaved(
    rules: Rules,
    run: list[str],
    of: Sizes,
    *,
    saves_inputs: bool,
    keeps_outputs: bool,
    closed: Closed,
) -> list[Unsaved]:
    """Storages that training every weight keeps and this does not.

    Args:
        rules: of the block.
        run: modules in the order in which they run forward.
        of: sizes.
        saves_inputs: linear layers keep inputs whatever is trained.
        keeps_outputs: attention keeps what the layer after it is handed.
        closed: modules whose input carries no gradient.
    """
    found = [Unsaved(r.num_bytes, r.until, False, r.modules[0]) for r in closed.regions]
    found += _of_closed(rules, run, of, closed)
    met: set[str] = set()
    for name in run:
        if _is_passed(rules, name, run, of, closed):
            found += _cached_cast(rules, name, of)
            continue
        found += _of_others(rules, name, of)
        tensor = rules.own.get(f"{name}.weight") or rules.tied(name)
        if tensor is None or name in met or not rules.is_product(name):
            continue
        if of.casts and not (of.raw and rules.is_linear(name)):
            found += _casts(rules, name, tensor, of, keeps_outputs, name in closed.names)
            found += _handed_on(rules, name, run, of)
            continue
        group = _in_order(run, rules.group(name)) or [name]
        met.update(group)
        is_kept = _is_kept(rules, name, closed, keeps_outputs=keeps_outputs)
        is_kept |= name not in closed.names and _keeps_8_bits(rules, group)
        saves = saves_inputs and name not in closed.names
        if not is_kept and not _keeps_input(rules, group, of, saves_inputs=saves):
            found.append(_input(rules, tensor, group, run, of))
    return found


def _in_order(run: list[str], group: tuple[str, ...]) -> list[str]:
    return [name for name in run if name in group]


def _of_others(rules: Rules, name: str, of: Sizes) -> Iterator[Unsaved]:
    """Inputs of experts in one tensor, and what an RMSNorm multiplies by its weight."""
    if f"{name}.gate_up_proj" in rules.own:
        yield from _experts(rules, name, of)
    tensor = rules.own.get(f"{name}.weight")
    if tensor and "RMSNorm" in tensor.module_type and not rules.is_trained(f"{name}.weight"):
        yield Unsaved(_normalized(rules, name, tensor, of), name, True, name)


def _is_passed(rules: Rules, name: str, run: list[str], of: Sizes, closed: Closed) -> bool:
    """True if all that the base keeps of the module's input was made and counted in a region.

    Autocast's cast of it was; else the module around may still hold it where the region ends.
    """
    region = next((region for region in closed.regions if name in region.modules), None)
    if region is None:
        return False
    if of.casts and not (of.raw and rules.is_linear(name)):
        return True
    is_held_beyond = is_held(name) and _last_beside(name, run) not in region.modules
    return name in closed.inside and not is_held_beyond


def _is_kept(rules: Rules, name: str, closed: Closed, *, keeps_outputs: bool) -> bool:
    """True if what made the layer's input keeps it, whatever the layer does."""
    if closed.ends_at(name):
        return False
    return (keeps_outputs and name.endswith(_AFTER_ATTENTION)) or _is_activation(rules, name)


def kept_by_adapters(
    rules: Rules,
    run: list[str],
    of: Sizes,
    *,
    saves_inputs: bool,
    keeps_outputs: bool,
    closed: Closed,
) -> dict[str, Unsaved]:
    """Inputs that nothing but adapters keeps, by the layer whose adapter is the last to.

    They go before that layer's own backward, which the base keeps them for.
    """
    found: dict[str, Unsaved] = {}
    for name in () if of.casts or of.trained is not of.dtype else run:
        group = _in_order(run, rules.group(name)) or [name]
        tensor = rules.own.get(f"{name}.weight")
        adapted = [other for other in group if other in rules.adapted]
        if name != group[0] or tensor is None or not adapted:
            continue
        is_kept = _is_kept(rules, name, closed, keeps_outputs=keeps_outputs)
        is_kept |= _keeps_8_bits(rules, group) or rules.adapted[adapted[0]].drops
        if not is_kept and not _base_keeps(rules, group, saves_inputs=saves_inputs):
            found[adapted[0]] = _input(rules, tensor, group, run, of)
    return found


def _casts(
    rules: Rules, name: str, tensor: Tensor, of: Sizes, keeps_outputs: bool, is_closed: bool
) -> Iterator[Unsaved]:
    """What torch's products cast for themselves under autocast: each its input and its weight."""
    if rules.is_trained(f"{name}.weight") or rules.is_trained(f"{name}.{SAVED}.weight"):
        return
    if not _is_kept(rules, name, Closed(), keeps_outputs=keeps_outputs):
        into, _ = widths_of(tensor, rules.spec.arch)
        size = num_bytes(of.tokens * into, of.dtype)
        yield Unsaved(size, f"/{name}", False, name, is_cast=is_held(name))
    if is_closed:
        yield from _weight_cast(rules, name, of)


def _weight_cast(rules: Rules, name: str, of: Sizes) -> Iterator[Unsaved]:
    """Autocast's cast of a weight, which is kept for the gradient of the layer's input."""
    tensor = rules.own.get(f"{name}.weight")
    if of.casts and tensor is not None and rules.is_product(name):
        yield Unsaved(num_bytes(tensor.numel, of.dtype), f"/{name}", False, name, is_cast=True)


def _cached_cast(rules: Rules, name: str, of: Sizes) -> Iterator[Unsaved]:
    """The cast that autocast keeps with and without gradients alike; it keeps none of a view."""
    tensor = rules.own.get(f"{name}.weight")
    if tensor is not None and not transposes(tensor):
        yield from _weight_cast(rules, name, of)


def _handed_on(rules: Rules, name: str, run: list[str], of: Sizes) -> Iterator[Unsaved]:
    """What an adapter's ZeRO-3 layer keeps as it is, beside a base that keeps a cast (Falcon's)."""
    group = _in_order(run, rules.group(name))
    adapted = rules.adapted.get(name)
    last = next((other for other in reversed(group) if other in rules.adapted), "")
    if of.raw and adapted is not None and not adapted.drops and is_held(name) and name == last:
        size = num_bytes(of.tokens * adapted.into, of.held)
        yield Unsaved(-size, f"/{run[-1]}", True, group[0])


def _of_closed(rules: Rules, run: list[str], of: Sizes, closed: Closed) -> Iterator[Unsaved]:
    """What norms keep for the gradient of their input: a copy in fp32, or the block's own input.

    A LayerNorm keeps its input for its weight's gradient, too.
    """
    norms = [name for name in run if name in closed.names and f"{name}.weight" in rules.own]
    is_input_met = False
    for name in norms:
        tensor = rules.own[f"{name}.weight"]
        size = of.tokens * tensor.numel
        if "RMSNorm" in tensor.module_type and of.held is not DType.FP32:
            if name not in closed.inside:
                yield Unsaved(num_bytes(size, DType.FP32), name, True, name)
        elif (
            tensor.module_type.endswith(("LayerNorm", "RMSNorm"))
            and not is_input_met
            and not rules.is_trained(f"{name}.weight")
        ):
            is_input_met = True
            yield Unsaved(num_bytes(size, of.held), HELD_BY_MODEL, True, name)
    yield from _of_activation(rules, run, of, closed)


def _of_activation(rules: Rules, run: list[str], of: Sizes, closed: Closed) -> Iterator[Unsaved]:
    """What a GELU keeps for the gradient of its input: that itself."""
    fields = rules.spec.hf_config
    if not any(fields.get(key) == "gelu" for key in ACTIVATION):
        return
    for before, name in pairwise(run):
        if name not in closed.names or before in closed.inside:
            continue
        if name.endswith(_AFTER_ACTIVATION):
            _, out = widths_of(rules.own[f"{before}.weight"], rules.spec.arch)
            yield Unsaved(num_bytes(of.tokens * out, of.dtype), f"/{before}", True, before)


def of_scores(rules: Rules, run: list[str], of: Sizes, closed: Closed) -> Iterator[Unsaved]:
    """Queries and keys as eager attention multiplies them: each is kept for the other's gradient.

    In a first block one may have none; keys are repeated for every head.
    """
    arch = rules.spec.arch
    names = [n for n in run if n.endswith(("q_proj", "k_proj", "v_proj"))]
    after = next((n for n in run if n.endswith(_AFTER_ATTENTION)), "")
    if closed.has_passed(after):
        return
    size = num_bytes(of.tokens * (arch.heads or 0) * (arch.head_dim or 0), of.dtype)
    for name in names:
        has_gradient = (
            name not in closed.names or name in rules.adapted or rules.is_trained(f"{name}.weight")
        )
        if not has_gradient and not name.endswith("v_proj") and after:
            yield Unsaved(size, f"/{names[-1]}", True, after)


def transposes(tensor: Tensor) -> bool:
    """True if its layer multiplies by a transposed view (transformers 5.23 modeling_falcon.py)."""
    return tensor.module_type == "FalconLinear"


def _is_activation(rules: Rules, name: str) -> bool:
    """True if the layer's input is a relu's output, which that keeps."""
    fields = rules.spec.hf_config
    is_relu = any(fields.get(key) == "relu" for key in ACTIVATION)
    return is_relu and name.endswith(_AFTER_ACTIVATION)


def _input(rules: Rules, tensor: Tensor, group: list[str], run: list[str], of: Sizes) -> Unsaved:
    into, _ = widths_of(tensor, rules.spec.arch)
    dtype = of.held if of.casts and is_held(group[0]) else of.dtype
    size = num_bytes(of.tokens * into, dtype)
    end = _last_beside(group[-1], run)
    return Unsaved(size, f"/{end}", is_held(group[0]), group[0])


def beside_autograd(
    rules: Rules, run: list[str], of: Sizes, *, keeps_outputs: bool
) -> dict[str, int]:
    """Inputs of 8-bit layers, which LLM.int8's products keep as they are (``ctx.tensors``).

    By the module with whose backward the base lets go of them; they go with the graph instead.
    bitsandbytes 0.50.2, autograd/_functions.py (MatMul8bitLt.forward).
    """
    found: dict[str, int] = {}
    if rules.spec.quantization is None or rules.spec.quantization.bits != 8:
        return found
    met: set[str] = set()
    before = ""
    for name in run:
        if rules.is_packed(name) and name not in met:
            met.update(rules.group(name))
            tensor = rules.own[f"{name}.weight"]
            into, _ = widths_of(tensor, rules.spec.arch)
            is_attentions = keeps_outputs and name.endswith(_AFTER_ATTENTION)
            last = before if is_attentions else name
            found[last] = found.get(last, 0) + num_bytes(of.tokens * into, of.dtype)
        before = name if rules.is_product(name) else before
    return found


def _experts(rules: Rules, name: str, of: Sizes) -> Iterator[Unsaved]:
    """What experts in one tensor are handed: tokens in their order, and what they gated.

    transformers 5.23, integrations/moe.py (grouped_mm_experts_forward).
    """
    arch, step = rules.spec.arch, f"~{name}.act_fn"
    rows = of.tokens * (arch.experts_per_token or 0)
    if not rules.is_trained(f"{name}.gate_up_proj"):
        size = num_bytes(rows * (arch.hidden or 0), of.dtype)
        yield Unsaved(size, step, False, f"{name}.gate_up_proj")
    if not rules.is_trained(f"{name}.down_proj"):
        size = num_bytes(rows * (arch.expert_ffn or 0), of.dtype)
        yield Unsaved(size, step, True, f"{name}.down_proj")


def is_held(name: str) -> bool:
    """True if the input is an argument of the module around, which keeps it to its end."""
    end = name.rpartition(".")[2]
    return end not in ("down_proj", "fc2", "dense_4h_to_h", "c_proj") and not name.endswith(
        _AFTER_ATTENTION
    )


def _last_beside(name: str, run: list[str]) -> str:
    """The last layer to run in the module around."""
    if not is_held(name):
        return name
    around = name.rpartition(".")[0]
    beside = [m for m in run if m.rpartition(".")[0] == around and around]
    return beside[-1] if beside else name


def _keeps_input(rules: Rules, group: list[str], of: Sizes, *, saves_inputs: bool) -> bool:
    for name in group:
        adapted = rules.adapted.get(name)
        if adapted is not None and not adapted.drops and of.trained is of.dtype:
            return True
    return _base_keeps(rules, group, saves_inputs=saves_inputs)


def _base_keeps(rules: Rules, group: list[str], *, saves_inputs: bool) -> bool:
    for name in group:
        if rules.is_trained(f"{name}.weight") or rules.is_trained(f"{name}.{SAVED}.weight"):
            return True
        is_linear = rules.is_linear(name)
        if saves_inputs and is_linear and not rules.is_packed(name):
            return True
    return False


def _keeps_8_bits(rules: Rules, group: list[str]) -> bool:
    """True if a product of LLM.int8 keeps the input, beside autograd."""
    packed = rules.spec.quantization
    return packed is not None and packed.bits == 8 and any(map(rules.is_packed, group))


def _normalized(rules: Rules, name: str, tensor: Tensor, of: Sizes) -> int:
    """Bytes of what a norm multiplies by its weight: as wide as what it is handed."""
    arch, numel, dtype = rules.spec.arch, tensor.numel, of.held
    end = name.rpartition(".")[2]
    if numel == arch.head_dim and end in ("q_norm", "k_norm"):
        numel *= (arch.heads if end == "q_norm" else arch.kv_heads) or 1
        dtype = of.dtype
    return num_bytes(of.tokens * numel, DType.FP32 if "Gemma" in tensor.module_type else dtype)
