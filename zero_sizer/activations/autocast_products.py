"""Backward of frozen linear layers under autocast, from that of trained ones.

The gradient of a weight is made in 16 bits and then cast to the weight's fp32, so a profile counts
it for a while, beside the casts of both factors where ZeRO-3's linear layers make them anew
(runtime/zero/linear.py). A frozen layer makes the gradient of its input alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from zero_sizer.activations.changed_blocks import Rules
from zero_sizer.activations.frozen import is_held
from zero_sizer.activations.levels import Level, StepLevels
from zero_sizer.activations.lora import Sizes
from zero_sizer.models.spec import widths_of
from zero_sizer.units import DType, num_bytes


class Product(NamedTuple):
    """A linear layer's storages under autocast, in bytes.

    Attributes:
        weight: its cast.
        into: what it multiplies by that, cast.
        out: what it makes.
        wide: what it is handed, and the gradient of that.
        raw: it saves what it is handed, and casts both factors anew for backward.
        lent: of ``out``'s gradient, what another layer is handed too.
    """

    weight: int
    into: int
    out: int
    wide: int
    raw: bool
    lent: int = 0


def product_of(rules: Rules, name: str, of: Sizes) -> Product | None:
    """The linear layer ``name``; None where the module is none."""
    tensor = rules.own.get(f"{name}.weight") or rules.tied(name)
    if tensor is None or not rules.is_product(name):
        return None
    into, out = widths_of(tensor, rules.spec.arch)
    narrow = num_bytes(of.tokens * into, of.dtype)
    return Product(
        weight=num_bytes(tensor.numel, of.dtype),
        into=narrow,
        out=num_bytes(of.tokens * out, of.dtype),
        wide=num_bytes(of.tokens * into, DType.FP32) if is_held(name) else narrow,
        raw=of.raw and rules.is_linear(name),
    )


def without_weights(steps: Sequence[StepLevels], rules: Rules, of: Sizes) -> Sequence[StepLevels]:
    """A backward's steps as they are where weights of linear layers are frozen."""
    waits = rules.tied_bytes(of)
    found = [Level(step.runs, step.completes, step.peak, step.end) for step in steps]
    for number, step in enumerate(steps):
        for token in step.runs.split():
            product = product_of(rules, token[1:], of) if token.startswith("^") and waits else None
            if product is not None and rules.tied(token[1:]) is not None:
                _tied(found, number, product, waits)
        name = step.completes.removesuffix(".weight")
        if name == step.completes or rules.is_trained(step.completes):
            continue
        product = product_of(rules, name, of)
        if product is not None:
            shares = rules.is_parallel and name.endswith(rules.beside)
            _alone(found, number, name, product._replace(lent=product.out if shares else 0))
    return found


def _before(steps: Sequence[StepLevels], number: int) -> int:
    return steps[number - 1].end if number else 0


def _tied(steps: list[Level], number: int, product: Product, waits: int) -> None:
    """The head of a tied weight, whose gradient ``waits`` for the embedding's."""
    peak = _before(steps, number) + _beside(product) + waits
    steps[number] = steps[number]._replace(peak=max(peak, steps[number].end))


def _beside(product: Product) -> int:
    """Bytes at most beside what is there when backward of a product begins."""
    if not product.raw:
        return product.into
    casts = product.into + product.wide if product.wide > product.into else 0
    return max(product.weight + product.into, casts - product.out)


def _alone(steps: list[Level], number: int, name: str, product: Product) -> None:
    """Change the steps of one layer, of which step ``number`` completes the weight's gradient."""
    last = number
    while last + 1 < len(steps) and steps[last + 1].completes == f"{name}.bias":
        last += 1
    begins = number - 1
    while begins > 0 and not steps[begins].runs:
        begins -= 1
    if begins < 0:
        return
    words, before, end = steps[begins].runs.split(), _before(steps, begins), steps[last].end
    if f"^{name}" in words:
        steps[begins] = steps[begins]._replace(peak=before + _beside(product), end=before)
    elif name in words:  # the last to run again, of which backward follows at once
        again = before + product.weight + (product.out if product.raw else 0)
        before = end - product.wide + product.into + product.out - product.lent
        before += 0 if product.raw else product.weight
        steps[begins] = steps[begins]._replace(peak=again, end=before)
    else:
        return
    for at in range(begins + 1, last + 1):
        peak = before + _beside(product) if at == begins + 1 else before
        steps[at] = steps[at]._replace(peak=peak, end=before)
    steps[last] = steps[last]._replace(end=end)
