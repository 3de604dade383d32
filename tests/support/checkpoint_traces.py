"""Traces variants of checkpointing in a process of its own, as ``profile_traces.py`` does.

    python tests/support/checkpoint_traces.py CASES.json

CASES: a list of ``{"model": bundled name, "depth": blocks, "at": [b, s], "variants": {name:
arguments of activation_checkpointing_enable}}``, or with ``"padded": [[attention, checkpointing],
...]`` instead of variants: batches with a mask. Prints, for each, every section's block, pass, peak
and end, all in bytes.
"""

import json
import sys
from pathlib import Path


def case(model, depth, at, variants=None, padded=()):
    from zero_sizer.models.sources.bundled import read_bundled
    from zero_sizer.tracing import build
    from zero_sizer.tracing.setups import Setup, Tracer

    fields = {**read_bundled(model)["hf_config"], "num_hidden_layers": depth}
    subject = Tracer(fields, whole=True).subject
    setup, seen = Setup(variant="bf16", attention="flash", checkpointing=True), {}
    usual = build.checkpoint
    for name, arguments in (variants or {}).items():
        build.checkpoint = lambda model, a=arguments: model.activation_checkpointing_enable(**a)
        seen[name] = rows(subject, setup, at)
    build.checkpoint = usual
    if padded:
        pad(build)
    for attention, checkpointing in padded:
        setup = Setup(variant="bf16", attention=attention, checkpointing=checkpointing)
        seen[f"{attention} {checkpointing}"] = rows(subject, setup, at)
    return seen


def rows(subject, setup, at):
    from zero_sizer.tracing import fitted
    from zero_sizer.tracing.setups import traced

    with traced(subject, setup) as (trace, owners):
        return [
            (block, is_backward, max(p[0] for s in section.steps for p in s.peaks), end)
            for block, is_backward, section in fitted.measure(trace(*at), owners).rows
            for end in [section.steps[-1].end[0]]
        ]


def pad(build):
    """Batches have a mask; flash attention is told that it hides nothing, and copies all the same.

    The mask has no values here, so what transformers reads off it is given.
    """
    import torch
    from transformers import masking_utils
    from transformers import modeling_flash_attention_utils as utils

    from zero_sizer.simulator.operators import flash

    usual = build.batch

    def batch(b, s, where):
        ids = usual(b, s, where)
        return {**ids, "attention_mask": torch.ones_like(ids["input_ids"])}

    def unpadded(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, **lengths):
        return flash._flash(q[None], k[None], v[None], dropout_p, softmax_scale, causal)[0]

    def where_tokens_are(mask):
        every = torch.zeros(mask.numel(), dtype=torch.long, device=mask.device)
        return every, torch.zeros(9, dtype=torch.int32, device=mask.device), mask.shape[1]

    build.batch = batch
    flash._lazy_imports = lambda *_, **__: (
        *(flash._flash, unpadded, None),
        *(utils._pad_input, utils._unpad_input),
    )
    utils._get_unpad_data = where_tokens_are
    masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
    masks["flash_attention_2"] = lambda *_, attention_mask=None, **__: attention_mask


def main() -> None:
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps([case(**each) for each in cases]) + "\n")


if __name__ == "__main__":
    main()
