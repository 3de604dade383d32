"""The loss: what holds logits and their copies, by who computes it.

Bytes of T tokens and V words at e bytes an element of the logits:

=============  ==================  ======  ========  ===========================================
loss           forward             saved   backward  source
=============  ==================  ======  ========  ===========================================
transformers   e, fp32 copy, and   4 TV    + 8 TV    transformers 5.23 loss/loss_utils.py
               log-softmax in fp32                   (ForCausalLMLoss, fixed_cross_entropy)
transformers-  e, shifted copy,    e TV    + 2e TV   transformers 4.45 models/gpt2/
  16bit        and log-softmax                       modeling_gpt2.py (GPT2LMHeadModel.forward),
               in 16 bits                            torch 2.13 nn/functional.py (cross_entropy)
megatron       e, fp32 copy        4 TV    + e TV    NVIDIA/Megatron-LM 34ed99d
                                                     megatron/mpu/cross_entropy.py
fused          e                   e TV    + e TV    flash-attention 058ad35
                                                     flash_attn/ops/triton/cross_entropy.py
fused-linear   a chunk of them     none    none      Liger-Kernel 0.8.5
                                                     ops/fused_linear_cross_entropy.py
=============  ==================  ======  ========  ===========================================

``transformers-16bit`` is what GPT-2, GPT-NeoX, OPT and BLOOM had before transformers 4.46; Llama
and those after it copied logits to fp32 (``logits.float()``) then too, and so did GPT-J.

Backward of all but the last leaves the gradient of the logits, e TV, to the head's. Liger makes the
gradients of the head's input and weight in the forward and keeps those; its head never runs as a
module.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.activations.levels import (
    Activations,
    ComposedPart,
    ComposedSection,
    Level,
    MicroStep,
    PartLevels,
    StepLevels,
)
from zero_sizer.config.workload import FUSED, FUSED_LINEAR, MEGATRON, SIXTEEN_BITS, TRANSFORMERS
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import DType, ceil_div, num_bytes
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass

_FP32 = 4  # bytes
_PER_TOKEN = 64  # bytes: shifted labels and losses, beside logits


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes that a loss is computed of.

    Attributes:
        tokens: samples times their length.
        vocab: words.
        hidden: width of the head's input.
        dtype: of the logits.
        trains_head: the head's weight needs a gradient.
    """

    tokens: int
    vocab: int
    hidden: int
    dtype: DType
    trains_head: bool

    @property
    def logits(self) -> int:
        """Bytes of all logits."""
        return num_bytes(self.tokens * self.vocab, self.dtype)

    @property
    def inputs(self) -> int:
        """Bytes of the head's input."""
        return num_bytes(self.tokens * self.hidden, self.dtype)

    @property
    def head(self) -> int:
        """Bytes of the gradient of the head's weight."""
        return num_bytes(self.vocab * self.hidden, self.dtype) if self.trains_head else 0


class Bytes(NamedTuple):
    """Bytes that a loss holds, logits included.

    Attributes:
        forward: the most while it is computed.
        held: until its backward.
        backward: the most that its backward adds to that.
    """

    forward: int
    held: int
    backward: int


def head_of(spec: ModelSpec) -> tuple[int, ...]:
    """Index of the head's weight, tied or not; nothing where none has its size."""
    numel = (spec.arch.vocab or 0) * (spec.arch.hidden or 0)
    return tuple(i for i, found in enumerate(spec.numels) if found == numel)[-1:]


def trains_head(spec: ModelSpec) -> bool:
    """True if the head's weight needs a gradient."""
    return _trains_head(Identity(spec))


@lru_cache(maxsize=64)
def _trains_head(spec: Identity) -> bool:
    return any(spec.of.parameters[i].trainable for i in head_of(spec.of))


def of_logits(kind: str, sizes: Sizes) -> Bytes:
    """Of a loss that takes whole logits: any but Liger's."""
    logits = sizes.logits
    upcast = _FP32 * sizes.tokens * sizes.vocab
    is_16bit = logits < upcast
    if kind == FUSED:
        return Bytes(logits, logits, logits)
    if kind == SIXTEEN_BITS:  # the last token's logits are few: its copy is taken as whole
        return Bytes(3 * logits, logits, 2 * logits)
    if kind == MEGATRON:  # in place in the copy, or in the logits where they are fp32 already
        return Bytes(logits + upcast, upcast, logits) if is_16bit else Bytes(logits, logits, 0)
    return Bytes(logits + (2 if is_16bit else 1) * upcast, upcast, 2 * upcast)


def moved(kind: str, sizes: Sizes) -> int:
    """Bytes read and written for the loss, forward and backward, beside the head's products.

    transformers': copied to fp32, log-softmax (read, written), the gradient of what was picked
    (written), softmax's backward (two read, one written), cast back. Megatron's: copied, maximum,
    difference, exponential, sum and quotient in place, the product with the gradient, cast back.
    In 16 bits: shifted (read, written), log-softmax, gradients as above, and slice's backward
    (filled, read, written). The kernels of the others read the logits and then read them and write
    their gradient.
    """
    logits, elements = sizes.logits, sizes.tokens * sizes.vocab
    if kind in (FUSED, FUSED_LINEAR):
        return 3 * logits
    if kind == SIXTEEN_BITS:
        return 11 * logits
    casts = 2 * (logits + _FP32 * elements) if logits < _FP32 * elements else 0
    return casts + (40 if kind == MEGATRON else 24) * elements


def repeated(kind: str, sizes: Sizes) -> int:
    """Bytes of the head's weight that the chunks after the first read and write again.

    Each reads it twice, for logits and for the gradient of their input, and adds to its gradient.
    """
    if kind != FUSED_LINEAR or not (sizes.vocab and sizes.hidden):
        return 0
    chunks = ceil_div(sizes.tokens, _chunk_rows(sizes))
    reads = 4 if sizes.trains_head else 2
    return (chunks - 1) * reads * num_bytes(sizes.vocab * sizes.hidden, sizes.dtype)


def chunk(sizes: Sizes) -> int:
    """Bytes of the logits that Liger makes at once: about as many as the head's input."""
    return num_bytes(_chunk_rows(sizes) * sizes.vocab, sizes.dtype)


def _chunk_rows(sizes: Sizes) -> int:
    share = ceil_div(sizes.tokens, ceil_div(sizes.vocab, sizes.hidden))
    return min(1 << (share - 1).bit_length(), sizes.tokens)


def closed_form(sizes: Sizes, module: str, names: Sequence[str], waiting: int = 0) -> ComposedPart:
    """Head and loss as transformers computes them, in a profile's shape.

    Args:
        sizes: of what.
        module: the head; empty where it is not known.
        names: parameters whose gradients its backward completes.
        waiting: bytes of the gradient of a tied one, which waits for the embedding's.
    """
    inputs, logits, loss = sizes.inputs, sizes.logits, of_logits(TRANSFORMERS, sizes)
    gradient, saved = logits - loss.held, inputs + loss.held
    forward = (
        Level(module, "", inputs + logits, inputs + logits),
        Level(f"/{module}" if module else "", "", inputs + loss.forward, saved),
    )
    begins = [f"^{module}" if module else "", *[""] * len(names)]
    peak, end = gradient + inputs + waiting, gradient + waiting
    own = [
        Level(begun, name, peak, end) for begun, name in zip(begins, names or ("",), strict=False)
    ]
    over = own[-1]._replace(end=waiting - saved)
    backward = (Level("", "", loss.backward, gradient), *own[:-1], over)
    return ComposedPart("", 0, 1, ComposedSection(forward), ComposedSection(backward))


def computed_by(kind: str, step: MicroStep, sizes: Sizes) -> Activations | None:
    """The step with another loss than transformers'; None where its last part has another shape."""
    *others, last = step.parts
    usual = of_logits(TRANSFORMERS, sizes)
    is_known = sizes.hidden or kind != FUSED_LINEAR
    if not is_known or not _is_causal(last, sizes, usual):
        return None
    made = _linear(last, sizes, usual) if kind == FUSED_LINEAR else _whole(last, kind, sizes, usual)
    return Activations((*others, made))


def _is_causal(last: PartLevels, sizes: Sizes, usual: Bytes) -> bool:
    """Whether head and transformers' causal loss, in this order, are what the part ends with.

    Softcapped logits are saved once more, which is more, not something else.
    """
    forward, backward = last.forward.steps, last.backward.steps
    if not sizes.vocab or len(forward) < 2 or len(backward) < 2:
        return False
    head, loss = forward[-2:]
    follows = loss.runs.replace("/", "") == _module(head)
    room = _PER_TOKEN * max(sizes.tokens, 16)
    added = loss.peak - head.end - (usual.forward - sizes.logits)
    return follows and added > -room and abs(backward[0].peak - usual.backward) < room


def _whole(last: PartLevels, kind: str, sizes: Sizes, usual: Bytes) -> ComposedPart:
    """Another loss of whole logits: what follows its backward is the same."""
    other = of_logits(kind, sizes)
    *before, loss = last.forward.steps
    first, *after = last.backward.steps
    less = usual.held - other.held
    forward = [
        *map(_level, before),
        _level(loss, other.forward - usual.forward)._replace(end=loss.end - less),
    ]
    backward = [
        _level(first, other.backward - usual.backward)._replace(end=first.end + less),
        *(_level(step, less) for step in after),
    ]
    return ComposedPart.like(
        last, forward=ComposedSection((*forward,)), backward=ComposedSection((*backward,))
    )


def _linear(last: PartLevels, sizes: Sizes, usual: Bytes) -> ComposedPart:
    """Liger's: the head's gradients from the forward on, in place of logits and of its input."""
    *before, head, loss = last.forward.steps
    first, *after = last.backward.steps
    capped = sizes.logits - usual.held - first.end  # saved for softcapping, which Liger fuses too
    less = usual.held + capped - sizes.head
    summed = sizes.head if sizes.dtype is DType.FP32 else 0  # 16-bit products add in place
    peak = head.end - sizes.logits + sizes.inputs + sizes.head + summed + chunk(sizes)
    passed = head.runs.removesuffix(_module(head)).rstrip()
    forward = [*map(_level, before), Level(passed, "", peak, loss.end - less)]
    count = _num_of_head(_module(head), after)
    own, rest = after[:count], after[count:]
    over = own[-1].end + less
    levels = [over if step.completes else 0 for step in own[:-1]] + [over]
    backward = [
        Level("", "", 0, 0),
        *(Level("", step.completes, at, at) for step, at in zip(own, levels, strict=True)),
        *(_level(step, less) for step in rest),
    ]
    return ComposedPart.like(
        last, forward=ComposedSection((*forward,)), backward=ComposedSection((*backward,))
    )


def _module(head: StepLevels) -> str:
    """The head; empty where the step names none."""
    return head.runs.rpartition(" ")[2]


def _num_of_head(head: str, after: Sequence[StepLevels]) -> int:
    """Steps of the head's backward, of those after the loss's."""
    count = 1
    while count < len(after) and head and after[count].completes.rpartition(".")[0] == head:
        count += 1
    return count


def _level(step: StepLevels, more: int = 0) -> Level:
    return Level(step.runs, step.completes, step.peak + more, step.end + more)
