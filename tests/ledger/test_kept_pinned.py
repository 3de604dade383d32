"""Pinned host memory that PyTorch keeps; tests/dryrun/test_simulated_engine.py has its bytes."""

from ledger.test_verdict import BF16, OFFLOAD, ask, codes


def test_pinned_blocks_that_are_kept_decide_where_the_host_is_tight(tmp_path, capsys):
    """GLM-4-9B, all on the host, one GPU, 252G: killed with all of it full (LlamaFactory#4629)."""
    parked = {"offload_param": {"device": "cpu"}}  # pinned, unless it says no
    saved = {"stage3_gather_16bit_weights_on_model_save": True}
    config = BF16 | {"zero_optimization": OFFLOAD | parked | saved}
    said = ("--model", "THUDM/glm-4-9b-chat", "--gpus-per-node", "1", "--gpu", "h100-80gb")
    said = (*said, "--seq-len", "512", "--checkpointing", "--host-memory")
    asked = {
        size: ask(tmp_path, capsys, config, *said, size)[1] for size in ("252G", "300G", "99G")
    }
    found = [(codes(answer), answer["verdict"]) for answer in asked.values()]
    assert found[:2] == [(["pinned-kept"], "uncertain"), ([], "fits")]
    assert found[2] == (["host-too-small"], "does_not_fit")
    assert asked["99G"]["reasons"][0]["remedy"].endswith("from init on")
