"""Slices of AutoTP beside what real ranks of ``deepspeed.init_inference`` hold (gloo, on a CPU)."""

import json
from pathlib import Path

import pytest

from zero_sizer import models
from zero_sizer.models import kv_cache
from zero_sizer.models.changes import tensor_slices
from zero_sizer.units import DType, num_bytes

RECORDED = json.loads((Path(__file__).parents[1] / "data/autotp_shapes.json").read_text("utf-8"))
CASES = [(case, int(ranks)) for case, found in RECORDED.items() for ranks in found["ranks"]]


@pytest.fixture
def load(tmp_path):
    def loaded(case: str):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(RECORDED[case]["config"]), encoding="utf-8")
        return models.load(str(path))

    return loaded


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_each_rank_holds_what_a_real_one_does(load, case, ranks):
    whole = load(case)
    shapes = {tensor.name: tensor.shape for tensor in whole.parameters}
    for rank, real in enumerate(RECORDED[case]["ranks"][str(ranks)]):
        own = tensor_slices.of_rank(whole, ranks, rank)
        changed = {t.name: list(t.shape) for t in own.parameters if shapes.get(t.name) != t.shape}
        assert changed == real["shapes"], f"rank {rank}"
        assert num_bytes(sum(own.numels), DType.BF16) == real["bytes"], f"rank {rank}"


@pytest.mark.parametrize(("case", "ranks"), CASES)
def test_the_cache_has_the_heads_of_the_rank(load, case, ranks):
    whole = load(case)
    for rank, real in enumerate(RECORDED[case]["ranks"][str(ranks)]):
        layers = kv_cache.layers_of(tensor_slices.of_rank(whole, ranks, rank))
        found = [[layer.key, layer.value] for layer in layers]
        assert found == real["cache"] or (not found and not sum(map(sum, real["cache"])))


def test_heads_fewer_than_ranks_leave_ranks_without_attention(load):
    whole = load("llama, fewer key and value heads than ranks")
    rank, own = tensor_slices.highest(whole, 4)
    assert rank == 0
    assert own.arch.kv_heads == 1
    last = tensor_slices.of_rank(whole, 4, 3)
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert not any(t.numel for t in last.parameters if any(name in t.name for name in names))


def test_a_tied_head_becomes_a_tensor_of_its_own(load):
    whole = load("qwen2, tied")
    own = tensor_slices.of_rank(whole, 2, 0)
    assert own.parameters[0].shape == whole.parameters[0].shape
    assert own.parameters[-1].name == "lm_head.weight"
    assert own.whole is whole


def test_grains_decide_how_a_feed_forward_is_cut(load):
    whole = load("llama")
    widths = [tensor_slices.of_rank(whole, 2, rank, grain=1).arch.ffn for rank in range(2)]
    assert widths == [88, 88]
    assert [tensor_slices.of_rank(whole, 2, rank).arch.ffn for rank in range(2)] == [64, 112]
