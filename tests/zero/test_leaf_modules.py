"""Which modules stage 3 takes as a whole, and what follows for what is gathered and reduced."""

from dataclasses import replace

import pytest
from support.advise_jobs import job_on

from zero_sizer import sizing
from zero_sizer.activations import select
from zero_sizer.config import document
from zero_sizer.timeline.places import layout_of
from zero_sizer.timeline.program import program_of
from zero_sizer.timeline.zero_rules import leaves_of
from zero_sizer.zero.leaf_modules import Found, LeafModules, find

TYPES = {
    "model.embed": "Embedding",
    "model.layers.0.mlp.gate": "Router",
    "model.layers.0.mlp.experts": "Experts",
    "model.layers.0.norm": "Norm",
    "model.layers.1.mlp.up": "Linear",
}


@pytest.mark.parametrize(
    ("wanted", "family", "modules", "missing"),
    [
        (LeafModules(("a.b.MixtralSparseMoeBlock",), (), ()), "mixtral", ["layers.0.mlp"], []),
        (LeafModules(("MixtralSparseMoeBlock",), (), ()), "llama", [], []),
        (LeafModules(("Norm", "Unknown"), (), ()), "", ["layers.0.norm"], ["Unknown"]),
        (LeafModules((), ("model.layers.1.mlp", "model.x"), ()), "", ["layers.1.mlp"], ["model.x"]),
        (LeafModules((), (), ("mlp", "up")), "", ["layers.0.mlp", "layers.1.mlp"], []),
        (LeafModules((), (), ("layers.0", "gate")), "", ["layers.0"], []),
    ],
)
def test_leaves_are_found_as_deepspeed_finds_them(wanted, family, modules, missing):
    expected = Found(tuple(f"model.{name}" for name in modules), tuple(missing))
    assert find(wanted, TYPES, family) == expected


def plan_of(zero):
    values = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3}},
        "zero_optimization": {"stage": 3, **zero},
        "train_micro_batch_size_per_gpu": 1,
    }
    wanted = job_on("mixtral-8x7b", "h100-80gb", seq_len=128, checkpointing=False)
    answer = sizing.size(replace(wanted, document=document.from_mapping(values)))
    return answer.plan, {finding.code for finding in answer.findings}


def test_a_leaf_is_fetched_at_once_and_reduced_at_once():
    plan, _ = plan_of({})
    names = [tensor.name for tensor in plan.model.parameters]
    layout = layout_of(plan.model, select.activations_of(plan), leaves_of(plan).modules)
    program = program_of(layout)
    inside = {i for i, name in enumerate(names) if ".layers.5.mlp." in name}
    fetched = [
        set(v.parameters) for v in program.visits[0] if inside & set(v.parameters) and v.begins
    ]
    assert fetched == [inside, inside]  # forward, backward
    reduced = [set(step.reduces) for step in program.order if step.parameter in inside]
    assert reduced == [set(), set(), inside]


def test_without_leaves_every_module_stands_for_itself():
    plan, _ = plan_of({"leaf_module": {"classes": []}})
    program = program_of(
        layout_of(plan.model, select.activations_of(plan), leaves_of(plan).modules)
    )
    assert leaves_of(plan).modules == ()
    assert all(step.reduces == (step.parameter,) for step in program.order)


@pytest.mark.slow
def test_an_unknown_leaf_is_said():
    assert "leaf-module-unknown" in plan_of({"leaf_module": {"names": ["nowhere"]}})[1]
    assert "not-modelled" in plan_of({"stage3_module_granularity_threshold": 10**6})[1]
    assert not {"leaf-module-unknown", "not-modelled"} & plan_of({})[1]
