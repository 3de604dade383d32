"""The timeline's shortcuts against walking through every place, and sweeps against whole plans."""

import random
from dataclasses import asdict, replace

import pytest
from support.advise_jobs import job_on
from support.plain_flow import Rules, flow
from support.plain_gather import Trace, gathered_bytes

from zero_sizer import sizing
from zero_sizer.activations import select
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.ladder import settings_of
from zero_sizer.config import document
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import entries
from zero_sizer.ledger.entries import forward_backward
from zero_sizer.ledger.entry import evaluate
from zero_sizer.plan import sizes
from zero_sizer.timeline import compose
from zero_sizer.timeline.micro_steps import zeros_of
from zero_sizer.timeline.places import layout_of
from zero_sizer.timeline.zero_rules import leaves_of
from zero_sizer.units import DType
from zero_sizer.zero.gradient_flow import Completion

MODELS = ("gpt2", "tinyllama-1.1b", "mixtral-8x7b", "t5-3b", "bert-base")
NUMBERS = "params=6.7e9,layers=32,hidden=4096,heads=32,ffn=11008,vocab=32000"


def walked(plan):
    """Highest total of forward and backward, place by place, with nothing kept or left out."""
    found = [_walked(plan, zero) for zero in zeros_of(plan)]
    return max(forward for forward, _ in found), max(backward for _, backward in found)


def _walked(plan, zero):
    step = select.activations_of(plan)
    layout = layout_of(plan.model, step, leaves_of(plan).modules)
    forward = list(_places(step.parts, layout.forward, is_backward=False))
    backward = list(_places(step.parts[::-1], layout.backward[::-1], is_backward=True))
    visits = [v for _, place, _ in (*forward, *backward) for v in place.all_visits]
    tensors = (zero.tensors.numels, zero.itemsizes, zero.gather_itemsizes, zero.persistent)
    how = (zero.ranks, zero.is_parked, zero.kept, zero.recomputed, zero.secondary)
    trace = Trace(*tensors, tuple(visits), *how, zero.is_first)
    series = iter(gathered_bytes(trace, zero.limits) if zero.ranks else ())
    complete = [place for _, place, _ in backward if place.completes >= 0]
    order = tuple(Completion(p.completes, p.makes, p.reduces) for p in complete)
    share = {**asdict(zero.share), **zero.share.own._asdict()}
    share.pop("own")
    assert share.pop("divides") is None
    reduction = flow(zero.tensors, order, Rules(**asdict(zero.rules), **share))
    level, gathered, held, highest = 0, 0, reduction.start, []
    for places in (forward, backward):
        highest.append(0)
        last = None  # activations and gradients where the step before ended, in this pass
        for at, place, (peak, end) in places:
            before, hook, held = reduction.steps.get(place.completes, (held, held, held))
            for during, after in [next(series, (0, 0)) for _ in place.visits]:
                gathered = after
                meets = level + at + peak + before.total if last is None else last
                highest[-1] = max(highest[-1], meets + during)
            last = level + at + end + held.total  # the next fetch comes when the hook is over
            highest[-1] = max(highest[-1], level + at + peak + gathered + before.total)
            for _, after in [next(series, (0, 0)) for _ in place.ends]:
                gathered = after
            highest[-1] = max(highest[-1], level + at + end + hook.total + gathered)
        sections = [p.backward if places is backward else p.forward for p in step.parts]
        level += sum(p.count * s.end for p, s in zip(step.parts, sections, strict=True))
    return highest[0], max(highest[1], level + gathered + reduction.epilogue.total)


def _places(parts, layout, *, is_backward):
    """(level at which the block begins, place, (peak, end) of the step) in the order they run."""
    level = 0
    for part, positions in zip(parts, layout, strict=True):
        section = part.backward if is_backward else part.forward
        for block in range(part.count):
            for step, places in zip(section.steps, positions, strict=True):
                yield level, places[block], (step.peak, step.end)
            level += section.end


def drawn(model, count, seed, *, plainly=False):
    """Plans of all kinds, drawn with a fixed seed; ``plainly``: no secondary partitions (hpZ)."""
    draw = random.Random(seed)
    search = search_of(job_on(model, "h100-80gb", nvme="7TB", seq_len=512), Options())
    known = [s for s in search.strategies if "zero_hpz_partition_size" not in s.zero]
    for _ in range(count):
        strategy = draw.choice(known if plainly else search.strategies)
        values = search.sweep.values(
            strategy.name,
            dp_world_size=draw.choice((1, 2, 3, 8, 24, 100)),
            micro_batch=draw.choice((1, 2, 5, 16)),
            grad_accum=draw.choice((1, 4)),
            checkpointing=draw.random() < 0.5,
            **draw.choice(settings_of(strategy)).values,
        )
        yield search.sweep, values, draw


def odd(plan, draw):
    """The same plan with keys that ``choose`` leaves alone."""
    others = {
        "overlap_comm": draw.random() < 0.5,
        "contiguous_gradients": draw.random() < 0.8,
        "reduce_scatter": draw.random() < 0.8,
        "comm_dtype": draw.choice((plan.model_dtype, DType.FP32)),
        "grad_accum_dtype": draw.choice((plan.model_dtype, DType.FP32)),
        "align_tensors": draw.random() < 0.2,
        "persistence_threshold": draw.choice((0, 100_000, 10_000_000)),
        "attention": draw.choice(("flash", "eager")),
        "autocast_dtype": draw.choice((None, None, DType.FP16)),
        "rank": draw.randrange(plan.dp_world_size),
        "round_robin": draw.random() < 0.3,
    }
    return replace(plan, **others)


@pytest.mark.slow
@pytest.mark.parametrize("model", [*MODELS, NUMBERS])
def test_the_highest_place_is_the_highest_of_all(model):
    count = 5 if model == "t5-3b" else 12  # its two stacks take as long to walk as all others
    for sweep, values, draw in drawn(model, count, seed=5, plainly=True):
        for plan in (sweep.plan(values), odd(sweep.plan(values), draw)):
            timeline = compose.timeline_of(plan)
            assert (timeline.forward.total, timeline.backward.total) == walked(plan), plan


@pytest.mark.slow
@pytest.mark.parametrize("model", [*MODELS[:3], NUMBERS])
def test_bounds_find_the_highest_place(model):
    """Hooks that no bound asks about are left out; the explanation works out all of them."""
    for sweep, values, draw in drawn(model, 30, seed=9):
        for plan in (sweep.plan(values), odd(sweep.plan(values), draw)):
            rows, layout = compose.micro_step_of(plan)
            found = compose.highest_of(rows, compose.overlays_of(layout, zeros_of(plan)))
            timeline = compose.timeline_of(plan)
            assert found == (timeline.forward.total, timeline.backward.total), plan


@pytest.mark.slow
@pytest.mark.parametrize("model", [*MODELS[:3], NUMBERS])
def test_a_sweep_equals_the_explained_ledger(model):
    """The same bytes, whatever was kept: values in any order, each against a plan of its own."""
    for sweep, values, _ in drawn(model, 40, seed=6):
        plan = sweep.plan(values)
        allocations = evaluate(entries.ENTRIES, plan, explain=True)
        moments = sizing.totals(allocations, plan.ranks_per_node)
        for device, use in sweep.uses(values).items():
            peak = sizing.peak_of(moments[device])
            assert (use.num_bytes, use.moment) == (peak.num_bytes, peak.moment), (device, plan)


@pytest.mark.slow
def test_the_totals_of_the_passes_are_those_of_their_entries():
    for sweep, values, _ in drawn("gpt2", 10, seed=7):
        plan = sweep.plan(values)
        moments = sizing.totals(evaluate(forward_backward.ENTRIES, plan), 1)
        for moment, num_bytes in forward_backward.totals(compose.timeline_of(plan)).items():
            assert moments[Device.GPU][moment] == num_bytes


def test_two_groups_of_tensors_are_followed_like_one():
    """Muon's groups: buckets that hold tensors of both."""
    values = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "Muon", "params": {"lr": 1e-3}},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 30_000_000, "overlap_comm": True},
        "train_micro_batch_size_per_gpu": 2,
    }
    for nodes in (1, 3):
        wanted = job_on("gpt2", "h100-80gb", nodes=nodes, seq_len=128, checkpointing=True)
        plan = sizing.size(replace(wanted, document=document.from_mapping(values))).plan
        timeline = compose.timeline_of(plan)
        assert len(sizes.groups(plan)) == 2
        assert (timeline.forward.total, timeline.backward.total) == walked(plan)
