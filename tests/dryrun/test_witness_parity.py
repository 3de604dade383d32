"""The ledger beside real engines: persistent model states to the byte, on every rank.

Real ranks under DeepSpeed's launcher, CPU and gloo, one start for the whole grid of a world size.
"""

from dataclasses import dataclass, replace
from itertools import product

import pytest
from support.plans import make_job, spec_of
from support.warm import ranks_forked

from zero_sizer.crosscheck.compare import STATES, rank_rows
from zero_sizer.sizing import size

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

from zero_sizer.dryrun import launched  # noqa: E402
from zero_sizer.dryrun.from_job import rank_task  # noqa: E402

# No size divides by 2, 3 or 4, so that every kind of padding is needed; frozen tensors too.
ODD = spec_of(
    {
        "embed.weight": (37, 17),
        "layers.0.attn.weight": (33, 17),
        "layers.0.attn.bias": (33,),
        "layers.0.mlp.weight": (17, 35),
        "layers.1.attn.weight": (33, 17),
        "layers.1.attn.bias": (33,),
        "layers.1.mlp.weight": (17, 35),
        "norm.weight": (17,),
        "scale": (1,),
    }
)
EVEN = spec_of({"a.weight": (48, 24), "a.bias": (48,), "b.weight": (24, 48), "b.bias": (24,)})
FROZEN = spec_of(
    {"base.weight": (41, 19), "adapter.weight": (19, 3), "head.weight": (7, 19)},
    frozen=frozenset({"base.weight"}),
)
SPECS = {"odd": ODD, "even": EVEN, "frozen": FROZEN}
PRECISIONS = ("fp32", "bf16", "fp16")
OFFLOADS = ("none", "optimizer", "both")


@dataclass(frozen=True)
class Case:
    """One config; ``is_half``: of the half that has each two of its four settings together."""

    name: str
    config: dict
    spec: str = "odd"
    zero_init: bool = False
    is_half: bool = True


def config_of(stage, precision, offload, **zero):
    zero_section = {"stage": stage, "reduce_bucket_size": 1000, **zero}
    if offload != "none":
        zero_section["offload_optimizer"] = {"device": "cpu"}
    if offload == "both":
        zero_section["offload_param"] = {"device": "cpu"}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": zero_section,
    }
    if precision != "fp32":
        config[precision] = {"enabled": True}
    return config


def cases():
    """Stages x precisions x offloads x models, and single settings that change what is kept."""
    lists = (range(4), PRECISIONS, OFFLOADS, tuple(SPECS))
    for stage, precision, offload, spec in product(*lists):
        places = (stage, PRECISIONS.index(precision), OFFLOADS.index(offload), lists[3].index(spec))
        if (offload == "both" and stage != 3) or (offload == "optimizer" and stage == 0):
            continue
        for zero_init in (False, True) if stage == 3 and spec == "odd" else (False,):
            name = f"z{stage}-{precision}-{offload}-{spec}" + ("-zero.Init" if zero_init else "")
            config = config_of(stage, precision, offload)
            yield Case(name, config, spec, zero_init, sum(places) % 2 == 0)
    yield from extras()


def extras():
    accumulate = {"gradient_accumulation_steps": 3}
    fp32_grads = {"data_types": {"grad_accum_dtype": "fp32"}}
    for stage, offload in ((1, "none"), (2, "none"), (2, "optimizer"), (3, "both")):
        base = config_of(stage, "bf16", offload)
        yield Case(f"z{stage}-{offload}-accumulating", {**base, **accumulate})
        yield Case(f"z{stage}-{offload}-fp32-gradients", {**base, **fp32_grads})
    yield Case("z3-small-sub-groups", config_of(3, "bf16", "none", sub_group_size=300))
    yield Case(
        "z3-nothing-persistent",
        config_of(3, "bf16", "none", stage3_param_persistence_threshold=0),
    )
    yield Case("z2-overlap", config_of(2, "bf16", "none", overlap_comm=True))
    yield Case("z2-aligned", config_of(2, "bf16", "none", parameter_alignment=True))
    yield Case("z2-round-robin", config_of(2, "bf16", "none", round_robin_gradients=True))
    for optimizer in ({"type": "SGD", "params": {"momentum": 0.9}}, {"type": "Adagrad"}):
        for stage in (0, 2, 3):
            config = config_of(stage, "fp32", "none") | {"zero_allow_untested_optimizer": True}
            name = f"z{stage}-{optimizer['type']}"
            params = {"lr": 1e-4, **optimizer.get("params", {})}
            yield Case(name, {**config, "optimizer": {**optimizer, "params": params}})


CASES = tuple(cases())
# Half of the cases on 3 ranks, which divide nothing; each fourth on 2 and 4, which divide the even
# model.
BY_RANKS = {
    ranks: tuple(
        case
        for i, case in enumerate(CASES)
        if (case.is_half if ranks == 3 else (i + i // 4) % 4 == ranks // 2)
    )
    for ranks in (2, 3, 4)
}


@pytest.fixture(scope="module", params=BY_RANKS)
def grid(request):
    """(ranks, what every case's ranks recorded)."""
    ranks = request.param
    tasks = []
    for case in BY_RANKS[ranks]:
        job = make_job(case.config, SPECS[case.spec], ranks, zero_init=case.zero_init)
        tasks.append(replace(rank_task(job), peak=False, walk=False))
    with ranks_forked():
        return ranks, launched.run_tasks(tasks, ranks=ranks, timeout=1700)


def test_model_states_after_init_and_after_a_step_are_predicted_to_the_byte(grid):
    ranks, results = grid
    wrong = []
    for case, result in zip(BY_RANKS[ranks], results, strict=True):
        assert not isinstance(result, str), f"{case.name}: {result}"
        assert [rank.skipped_steps for rank in result] == [0] * ranks, case.name
        job = make_job(case.config, SPECS[case.spec], ranks, zero_init=case.zero_init)
        plan = size(job).plan
        for rank in result:
            wrong += [
                f"{case.name} rank {row.rank} of {ranks} {row.phase} {row.device} "
                f"{row.quantity}: predicted {row.predicted}, real {row.witnessed}"
                for row in rank_rows(plan, rank, "launched")
                if row.phase in ("init", "step")
                and row.quantity in STATES
                and row.predicted != row.witnessed
            ]
    assert not wrong, f"{len(wrong)} wrong:\n" + "\n".join(wrong)
