"""Muon's share of a step against what torch counts in DeepSpeed's own iterations."""

import pytest
from speed.test_speed_terms import plan_of, seconds

from zero_sizer.speed.muon import flops_of, flops_of_update

MUON = {"type": "Muon", "params": {"lr": 1e-4}}


@pytest.mark.parametrize("method", ["gram", "standard"])
@pytest.mark.parametrize("shape", [(64, 64), (64, 160), (160, 64), (3, 32, 96)])
def test_flops_are_those_that_torch_counts(shape, method):
    torch = pytest.importorskip("torch")
    muon = pytest.importorskip("deepspeed.runtime.zero.muon.original_muon")
    from torch.utils.flop_counter import FlopCounterMode

    compiled = {
        "gram": muon.zeropower_via_gram_newtonschulz,
        "standard": muon.zeropower_via_newtonschulz5,
    }[method]
    plain = getattr(compiled, "_torchdynamo_orig_callable", compiled)
    with FlopCounterMode(display=False) as counted:
        plain(torch.randn(shape, dtype=torch.bfloat16), steps=5)
    assert flops_of(shape, method) == counted.get_total_flops()


def test_ranks_share_the_matrices():
    plans = {nodes: plan_of(1, nodes=nodes, optimizer=MUON) for nodes in (1, 4)}
    one, four = (seconds(plan)["newton_schulz"] for plan in plans.values())
    assert one == pytest.approx(4 * four)
    every, largest = flops_of_update(plans[1])
    assert every > 1e14
    assert every > 32 * largest
    assert "newton_schulz" not in seconds(plan_of(1))
