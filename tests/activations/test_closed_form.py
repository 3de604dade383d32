"""How far the closed form is from what transformers' classes keep, for every traced family."""

import itertools
import json
from dataclasses import replace

import pytest

from zero_sizer.activations import select
from zero_sizer.activations.levels import Activations, ComposedPart
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.sizing import size
from zero_sizer.timeline import zero_rules
from zero_sizer.timeline.peaks import rows_of, timeline
from zero_sizer.timeline.places import layout_of
from zero_sizer.timeline.zero_rules import leaves_of

CONFIG = """{
 "train_micro_batch_size_per_gpu": 2, "optimizer": {"type": "AdamW"},
 "zero_optimization": {"stage": 2}, "bf16": {"enabled": true}
}"""
FAMILIES = {  # one model each, and the attention that its class has
    "gpt2-xl": ("flash", "eager"),
    "opt-1.3b": ("flash", "eager"),
    "bloom-560m": ("eager",),
    "pythia-1.4b": ("flash", "eager"),
    "gpt-neox-20b": ("flash", "eager"),
    "llama-2-7b": ("flash", "eager"),
    "llama-3.2-1b": ("flash", "eager"),
    "qwen2.5-0.5b": ("flash", "eager"),
    "qwen3-0.6b": ("flash", "eager"),
    "gemma-2b": ("flash", "eager"),
    "gemma-2-2b": ("flash", "eager"),
    "phi-2": ("flash", "eager"),
    "phi-3-mini": ("flash", "eager"),
    "mistral-7b": ("flash", "eager"),
    "falcon-7b": ("flash", "eager"),
    "t5-3b": ("eager",),
    "bert-large": ("sdpa", "eager"),
    "mixtral-8x7b": ("flash", "eager"),
    "qwen3-30b-a3b": ("flash", "eager"),
    "deepseek-v3": ("flash", "eager"),
    "granite-3.1-2b": ("flash", "eager"),
    "granite-4.0-1b": ("flash", "eager"),
    "olmo-2-7b": ("flash", "eager"),
}


def plan_of(path, model, attention, checkpointing, seq_len):
    flags = Flags(
        model=model,
        gpus_per_node=8,
        seq_len=seq_len,
        checkpointing=checkpointing,
        attention=attention,
        sequences="equal",
    )
    return size(read(str(path), flags)).plan


def highest(plan, step):
    found = timeline(
        rows_of(step),
        layout_of(plan.model, step, leaves_of(plan).modules, ()),
        zero_rules.zero_of(plan),
    )
    return max(found.forward.total, found.backward.total)


QUICK = ("qwen2.5-0.5b", "bert-large", "opt-1.3b", "phi-3-mini")


@pytest.mark.parametrize(
    "model", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in FAMILIES]
)
def test_what_a_family_keeps_is_within_the_closed_forms_error(tmp_path, model):
    path = tmp_path / "ds.json"
    path.write_text(CONFIG)
    for attention, checkpointing, seq_len in itertools.product(
        FAMILIES[model], (True, False), (512, 2048, 8192, 131_072)
    ):
        if seq_len > 2048 and attention != "eager":
            continue
        plan = plan_of(path, model, attention, checkpointing, seq_len)
        traced = select.traced_activations(plan)
        if traced is None:  # longer than it was made for
            continue
        closed = highest(plan, select.in_closed_form(plan))
        error = select.closed_form_error(plan)
        off = highest(plan, traced) - closed
        told = f"{model} {attention} {checkpointing} {seq_len}: {off} of {closed}, {error}"
        assert -error.below <= off <= error.above, told


@pytest.mark.parametrize("model", ["granite-4.0-350m", "olmo-3-7b"])
def test_families_that_keep_most_are_within_it(tmp_path, model):
    """Norms after each projection, scaled residuals: 0.77 and 0.753 of the blocks beyond it."""
    path = tmp_path / "ds.json"
    path.write_text(CONFIG)
    plan = plan_of(path, model, "sdpa", False, 1024)
    plan = replace(plan, micro_batch=256)  # blocks count, and no vocabulary
    closed = highest(plan, select.in_closed_form(plan))
    error = select.closed_form_error(plan)
    off = highest(plan, select.traced_activations(plan)) - closed
    assert 0 < off <= error.above


def block_by_block(step):
    """The same step, each block a part of its own."""
    blocks = [
        ComposedPart.like(part, blocks=range(number, number + 1))
        for part in step.parts
        for number in range(part.first, part.first + part.count)
    ]
    return Activations(tuple(blocks))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_equal_blocks_are_one_part_and_hold_what_each_holds_alone(tmp_path, stage, checkpointing):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({**json.loads(CONFIG), "zero_optimization": {"stage": stage}}))
    plan = plan_of(path, "qwen2.5-0.5b", "flash", checkpointing, 512)
    step = select.in_closed_form(plan)
    assert [part.count for part in step.parts if part.blocks] == [24]
    assert highest(plan, step) == highest(plan, block_by_block(step))
