"""AutoTP in the simulated engine: what each rank keeps, from the shapes that it should hold."""

from dataclasses import replace

import pytest
from support.plans import make_job
from support.simulated_jobs import TINY_LLAMA, config_of, request_for, tiny_llama

from zero_sizer.dryrun.from_job import rank_task
from zero_sizer.errors import UnsupportedError

HIDDEN, FFN, LAYERS, VOCAB, KEYS = 64, 160, 3, 512, 32
AUTOTP = {"tensor_parallel": {"autotp_size": 2}}


def kept(*, tied):
    """Parameters of a rank of two: norms whole, projections halved, an untied embedding whole.

    module_inject/layers.py: LinearLayer, LinearAllreduce, VocabParallelEmbedding.
    """
    projections = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * FFN
    blocks = LAYERS * (projections // 2 + 2 * HIDDEN)
    tables = VOCAB * HIDDEN // 2 if tied else VOCAB * HIDDEN * 3 // 2
    return tables + blocks + HIDDEN


@pytest.mark.slow
def test_states_are_those_of_the_shards_over_the_data_parallel_ranks():
    from zero_sizer.dryrun.simulated.parent import run_requests

    cases = [(stage, rank, tied) for stage in (1, 2) for rank in (0, 3) for tied in (False, True)]
    requests = []
    for stage, rank, tied in cases:
        request = request_for({"stage": stage}, ranks=4, rank=rank, config=AUTOTP)
        fields = {**TINY_LLAMA, "tie_word_embeddings": tied}
        requests.append(replace(request, hf_config=fields))
    for (stage, rank, tied), recording in zip(cases, run_requests(requests), strict=True):
        states = {
            buffer.name: buffer.num_bytes for buffer in recording.first.last("step").live
        }  # fmt: skip
        numel, ranks = kept(tied=tied), 4 // 2
        expected = {
            "bit16_groups_flat": 2 * numel,
            "single_partition_of_fp32_groups": 4 * numel // ranks,
            "exp_avg": 4 * numel // ranks,
            "exp_avg_sq": 4 * numel // ranks,
        }
        assert {name: states[name] for name in expected} == expected, (stage, rank, tied)


@pytest.mark.slow
def test_stage_3_and_ranks_without_heads_run_but_under_flash_attention():
    from zero_sizer.dryrun.simulated.parent import run_requests

    requests = [
        request_for({"stage": 3}, ranks=4, rank=1, config=AUTOTP),
        request_for({"stage": 1}, ranks=4, rank=3, config={"tensor_parallel": {"autotp_size": 4}}),
    ]
    requests.append(replace(requests[1], attention="flash"))
    requests[1] = replace(requests[1], attention="sdpa")
    *ran, refused = run_requests(requests)
    assert "does not support inputs with dim=0" in str(refused)
    for recording in ran:
        assert recording.first.last("step").device["gpu"]["max_allocated"] > 0


def test_a_config_alone_does_not_split_sequences(tmp_path):
    config = config_of({"stage": 3}, sequence_parallel_size=4, data_parallel_size=1)
    with pytest.raises(UnsupportedError, match="Ulysses") as refused:
        rank_task(make_job(config, tiny_llama(tmp_path), 4, seq_len=32))
    assert "train.py" in str(refused.value)
    alone = config_of({"stage": 3}, sequence_parallel_size=4)
    assert rank_task(make_job(alone, tiny_llama(tmp_path), 4, seq_len=32)).config
