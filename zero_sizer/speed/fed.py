"""Work of models that are fed more than tokens: what one sample's stacks compute, per token."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from math import fsum

from zero_sizer.models.feeds.fields import nested, whole
from zero_sizer.models.feeds.rows import TEXT, Stack, kind_of
from zero_sizer.models.spec import Architecture, ModelSpec
from zero_sizer.plan.plan import Plan
from zero_sizer.speed.work import (
    EAGER_NORM,
    EAGER_ROTATION,
    Work,
    elementwise,
    ends_with_product,
    is_rms_norm,
    products_of,
    query_width,
    rotated_width,
    work_of,
)
from zero_sizer.util.identity import Identity

_BACKWARD = 2.5 / 0.86  # of a fused kernel's forward (speed/terms.py)


def work_for(plan: Plan) -> Work | None:
    """Counts of a plan's model per token of ``seq_len``; None where its inputs are not modelled."""
    if plan.feed is None:
        return work_of(plan.model)
    return _work(Identity(plan.model), Identity(plan.feed), plan.seq_len)


@lru_cache(maxsize=64)
def _work(model: Identity, fed: Identity, tokens: int) -> Work | None:
    spec, feed = model.of, fed.of
    kind = kind_of(spec)
    if kind is None:
        return None
    lengths = {"none": 0.0, TEXT: float(tokens), **kind.lengths(spec.hf_config, feed)}
    stacks = kind.stacks(spec, lengths)
    if kind.decodes:
        arch = _that_reads(spec)
        pairs = (arch.num_layers or 0) * lengths[TEXT] ** 2
        stacks = (*stacks, Stack(arch=arch, rows=TEXT, pairs=pairs, causal=True))
    return _of_stacks(spec, kind.rows_of, lengths, stacks)


def _of_stacks(
    spec: ModelSpec,
    rows_of: Callable[[str, Mapping[str, float]], float],
    lengths: Mapping[str, float],
    stacks: tuple[Stack, ...],
) -> Work:
    """One sample's counts, divided by its tokens: ``tokens x count`` is of the sample again.

    A tower whose every weight is frozen, and before which nothing is trained, runs forward alone:
    its products lack both of backward's, and are not repeated by a checkpoint that has no backward.
    """
    tokens = lengths[TEXT]
    idle = [stack.under for stack in stacks if stack.leads and _is_frozen(spec, stack.under)]
    found = []
    for product in products_of(spec):
        rows = rows_of(product.name, lengths) / tokens
        if rows:
            is_idle = any(re.search(under, product.name) for under in idle)
            found.append((product, rows, is_idle))
    inside = [(p, rows) for p, rows, is_idle in found if p.in_block and not is_idle]
    outside = [(p, rows) for p, rows, is_idle in found if is_idle or not p.in_block]
    last = list({p.block: (p, rows) for p, rows in inside}.values())
    last = last if ends_with_product(spec) else []
    flops = fsum(p.flops * rows for p, rows, _ in found)
    missing = fsum((2 if is_idle else not p.trainable) * p.flops * r for p, r, is_idle in found)
    shares = [1 / (1 + _BACKWARD) if stack.under in idle else 1.0 for stack in stacks]
    squares = [4.0 * query_width(s.arch) * s.pairs * o for s, o in zip(stacks, shares, strict=True)]
    computed = [
        square * (0.5 if s.causal else 1) for square, s in zip(squares, stacks, strict=True)
    ]
    norms = fsum(t.numel * rows_of(t.name, lengths) for t in spec.parameters if is_rms_norm(t))
    moved = [(lengths[s.rows] * (s.arch.num_layers or 0), s) for s in stacks]
    rotated = fsum(times * rotated_width(s.arch) for times, s in moved)
    return Work(
        block_flops=fsum(p.flops * rows for p, rows in inside),
        head_flops=fsum(p.flops * rows for p, rows in outside),
        last_flops=fsum(p.flops * rows for p, rows in last),
        frozen_share=missing / flops if flops else 0.0,
        operand_elements=fsum(p.operands * rows for p, rows in inside),
        head_operand_elements=fsum(p.operands * rows for p, rows in outside),
        last_operand_elements=fsum(p.operands * rows for p, rows in last),
        weight_elements=sum(p.weights for p, _, _ in found),
        attention_flops=fsum(squares) / tokens**2,
        attention_share=fsum(computed) / (fsum(squares) or 1.0),
        elementwise_forward=fsum(t * elementwise(s.arch, backward=False) for t, s in moved)
        / tokens,
        elementwise_backward=fsum(
            t * elementwise(s.arch, backward=True) for t, s in moved if s.under not in idle
        )
        / tokens,
        eager_forward=(EAGER_NORM[0] * norms + EAGER_ROTATION[0] * rotated) / tokens,
        eager_backward=(EAGER_NORM[1] * norms + EAGER_ROTATION[1] * rotated) / tokens,
        score_width=fsum((s.arch.heads or 0) * s.pairs for s in stacks) / tokens**2,
    )


def _that_reads(spec: ModelSpec) -> Architecture:
    """Widths of the decoder: the model's, or those of its text config where it has none."""
    if spec.arch.num_layers and spec.arch.heads:
        return spec.arch
    text = nested(spec.hf_config, "text_config")
    heads = whole(text, "num_attention_heads")
    hidden = whole(text, "hidden_size")
    return replace(
        spec.arch,
        num_layers=whole(text, "num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=whole(text, "num_key_value_heads", default=heads),
        head_dim=whole(text, "head_dim", default=hidden // heads if heads else 0),
        ffn=whole(text, "intermediate_size"),
        gated_mlp=True,
    )


def _is_frozen(spec: ModelSpec, under: str) -> bool:
    return not any(t.trainable for t in spec.parameters if re.search(under, t.name))
