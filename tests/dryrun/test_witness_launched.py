"""``dryrun`` and ``crosscheck`` on real ranks, through the command line."""

import json

import pytest

from zero_sizer import cli
from zero_sizer.cli.progress import Progress
from zero_sizer.dryrun import recording
from zero_sizer.dryrun.recording import CATEGORIES

pytest.importorskip("deepspeed")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 997,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
CONFIG = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "offload_optimizer": {"device": "cpu"},
    },
}
SHARED = ("--micro-batch", "2", "--seq-len", "32", "--grad-accum", "2", "--precision", "bf16")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Folder with the job's files and ``r.json``: two layers of the model on three ranks."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "ds.json").write_text(json.dumps(CONFIG))
    options = ["--how", "launched", "--ranks", "3", "--layers", "2", "--output"]
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setattr(Progress, "at", lambda self, *event: told.append(event))
        code = cli.main(["dryrun", *job_in(folder), *SHARED, *options, str(folder / "r.json")])
    assert code == 0
    (folder / "told.json").write_text(json.dumps(told))
    return folder


def job_in(folder):
    return [str(folder / "ds.json"), "--model", str(folder / "config.json")]


def test_every_rank_passed_every_phase_of_every_micro_step(recorded):
    found = recording.read(recorded / "r.json")
    micro = [(name, k) for k in range(2) for name in ("forward", "backward", "step")]
    assert [rank.rank for rank in found.ranks] == [0, 1, 2]
    for rank in found.ranks:
        assert [(p.name, p.micro_step) for p in rank.phases] == [("init", 0), *micro, *micro]
        for phase in rank.phases:
            assert {buffer.category for buffer in phase.live} <= set(CATEGORIES)
            for device in ("gpu", "host"):
                figures = phase.device[device]
                assert figures["allocated"] == phase.num_bytes(device=device)
                assert figures["max_allocated"] >= figures["allocated"]


def test_who_waits_is_told_of_every_phase(recorded):
    first, *told = json.loads((recorded / "told.json").read_text())
    phases = [phase.name for phase in recording.read(recorded / "r.json").ranks[0].phases]
    assert first == [0, None, "launched: starting the engine"]
    assert told == [[done, len(phases), name] for done, name in enumerate(phases, 1)]


def test_the_cut_is_said_and_made(recorded):
    found = recording.read(recorded / "r.json")
    assert found.job["layers"] == 2
    assert "cut to 2 layers" in found.job["name"]
    assert found.job["hf_config"]["num_hidden_layers"] == 2


def test_ranks_agree_where_zero_partitions_evenly_and_hold_their_share(recorded):
    found = recording.read(recorded / "r.json")
    masters = [rank.last("step").num_bytes("master_weights") for rank in found.ranks]
    assert len(set(masters)) == 1  # padded to the same size on every rank


def test_crosscheck_finds_the_model_states_of_a_real_model_to_the_byte(recorded, capsys):
    arguments = ["crosscheck", *job_in(recorded), *SHARED]
    arguments += ["--recording", str(recorded / "r.json"), "--format", "json"]
    assert cli.main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    # Not after forward: the ledger's moment there is a peak, with a gather still in flight.
    between = ("init", "backward", "step")
    states = [r for r in rows if r["quantity"] == "model states" and r["phase"] in between]
    assert {row["phase"] for row in states} == set(between)
    assert {row["rank"] for row in states} == {0, 1, 2}
    assert [row for row in states if row["predicted"] != row["witnessed"]] == []


def test_text_shows_prediction_witness_and_error(recorded, capsys):
    path = str(recorded / "r.json")
    assert cli.main(["crosscheck", *job_in(recorded), *SHARED, "--recording", path]) == 0
    out = capsys.readouterr().out
    assert "predicted" in out
    assert "witnessed" in out
    assert "+0.00%" in out
