"""Savings of frozen layers: activations that are not kept.

A linear layer needs its input for its weight's gradient alone, an RMSNorm the normalized one;
other operators keep what they keep for the gradient of their input.
"""

from collections.abc import Iterator
from typing import NamedTuple

from zero_sizer.activations.changed_blocks import SAVED, Rules
from zero_sizer.activations.lora import Sizes
from zero_sizer.activations.structure import ACTIVATION
from zero_sizer.models.spec import Tensor
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
_LINEAR = ("Linear", "Conv1D", "Embedding")  # ends of classes' names; a tied head is an Embedding


class Unsaved(NamedTuple):
    """A storage that is kept where every weight is trained, and not here.

    Attributes:
        num_bytes: its size.
        made: the word of ``runs`` after which it is not needed here.
        is_held: only where that step ends: the caller holds it until then.
        freed: the module with whose backward the base lets go of it.
    """

    num_bytes: int
    made: str
    is_held: bool
    freed: str


def unsaved(
    rules: Rules,
    run: list[str],
    of: Sizes,
    *,
    saves_inputs: bool,
    keeps_outputs: bool,
    closed: frozenset[str] = frozenset(),
) -> list[Unsaved]:
    """Storages that training every weight keeps and this does not.

    Args:
        rules: of the block.
        run: modules in the order in which they run forward.
        of: sizes.
        saves_inputs: linear layers keep inputs whatever is trained.
        keeps_outputs: attention keeps its output.
        closed: modules whose input carries no gradient.
    """
    found: list[Unsaved] = list(_of_closed(rules, run, of, closed))
    met: set[str] = set()
    for name in run:
        if f"{name}.gate_up_proj" in rules.own:
            found += _experts(rules, name, of)
        tensor = rules.own.get(f"{name}.weight") or rules.tied(name)
        if tensor is None or name in met:
            continue
        if "RMSNorm" in tensor.module_type and not rules.is_trained(f"{name}.weight"):
            found.append(Unsaved(_normalized(rules, name, tensor, of), name, True, name))
        if not is_product(rules, name, tensor):
            continue
        group = [other for other in run if other in rules.group(name)] or [name]
        met.update(group)
        is_kept = (keeps_outputs and name.endswith(_AFTER_ATTENTION)) or _is_activation(rules, name)
        saves = saves_inputs and name not in closed
        if not is_kept and not _keeps_input(rules, group, of, saves_inputs=saves):
            found.append(_input(tensor, group, run, of))
    return found


def _of_closed(
    rules: Rules, run: list[str], of: Sizes, closed: frozenset[str]
) -> Iterator[Unsaved]:
    """What norms keep for the gradient of their input: a copy in fp32, or the block's own input."""
    norms = [name for name in run if name in closed and f"{name}.weight" in rules.own]
    is_input_met = False
    for name in norms:
        tensor = rules.own[f"{name}.weight"]
        size = of.tokens * tensor.numel
        if "RMSNorm" in tensor.module_type and of.held is not DType.FP32:
            yield Unsaved(num_bytes(size, DType.FP32), name, True, name)
        elif tensor.module_type.endswith("LayerNorm") and not is_input_met:
            is_input_met = True
            yield Unsaved(num_bytes(size, of.held), f"/{run[-1]}", True, name)


def is_product(rules: Rules, name: str, tensor: Tensor) -> bool:
    """True if the module multiplies by the tensor: an embedding does as a tied head only."""
    is_table = tensor.module_type.endswith("Embedding") and tensor is not rules.tied(name)
    return tensor.module_type.endswith(_LINEAR) and not is_table


def _is_activation(rules: Rules, name: str) -> bool:
    """Whether the layer's input is a relu's output, which that keeps."""
    fields = rules.spec.hf_config
    is_relu = any(fields.get(key) == "relu" for key in ACTIVATION)
    return is_relu and name.endswith(_AFTER_ACTIVATION)


def _input(tensor: Tensor, group: list[str], run: list[str], of: Sizes) -> Unsaved:
    into = tensor.shape[0 if tensor.module_type == "Conv1D" else -1]
    size = num_bytes(of.tokens * into, of.dtype)
    end = _last_beside(group[-1], run)
    return Unsaved(size, f"/{end}", _is_held(group[0]), group[0])


def beside_autograd(rules: Rules, run: list[str], of: Sizes) -> int:
    """Inputs of 8-bit layers, which LLM.int8's products keep as they are (``ctx.tensors``).

    bitsandbytes 0.50.2, autograd/_functions.py (MatMul8bitLt.forward).
    """
    if rules.spec.quantization is None or rules.spec.quantization.bits != 8:
        return 0
    found = 0
    met: set[str] = set()
    for name in run:
        if rules.is_packed(name) and name not in met:
            met.update(rules.group(name))
            shape = rules.own[f"{name}.weight"].shape
            found += num_bytes(of.tokens * shape[-1], of.dtype)
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


def _is_held(name: str) -> bool:
    """Whether the input is an argument of the module around, which keeps it to its end."""
    end = name.rpartition(".")[2]
    return end not in ("down_proj", "fc2", "dense_4h_to_h", "c_proj") and not name.endswith(
        _AFTER_ATTENTION
    )


def _last_beside(name: str, run: list[str]) -> str:
    """The last layer to run in the module around."""
    if not _is_held(name):
        return name
    around = name.rpartition(".")[0]
    beside = [m for m in run if m.rpartition(".")[0] == around and around]
    return beside[-1] if beside else name


def _keeps_input(rules: Rules, group: list[str], of: Sizes, *, saves_inputs: bool) -> bool:
    for name in group:
        adapted = rules.adapted.get(name)
        if adapted is not None and not adapted.drops and of.trained is of.dtype:
            return True
        if rules.is_trained(f"{name}.weight") or rules.is_trained(f"{name}.{SAVED}.weight"):
            return True
        is_linear = rules.is_linear(name)
        packed = rules.spec.quantization
        if packed is None or not rules.is_packed(name):
            if saves_inputs and is_linear:
                return True
        elif packed.bits == 8:
            return True
    return False


def _normalized(rules: Rules, name: str, tensor: Tensor, of: Sizes) -> int:
    arch, numel = rules.spec.arch, tensor.numel
    end = name.rpartition(".")[2]
    if numel == arch.head_dim and end in ("q_norm", "k_norm"):
        numel *= (arch.heads if end == "q_norm" else arch.kv_heads) or 1
    return num_bytes(of.tokens * numel, DType.FP32 if "Gemma" in tensor.module_type else of.dtype)
