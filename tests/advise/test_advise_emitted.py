"""A slice of ``benchmarks/emitted.py``: emitted files go to those who read them, and are run."""

import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import emitted
from emitted_draws import Draw, draws

pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "count", "runs"), [(5, 3, False), (8, 1, True)])
def test_every_reader_takes_what_is_emitted(seed, count, runs):
    outcome = emitted.Outcome()
    for draw in islice(draws(seed), count):
        emitted.examine(draw, outcome, runs=runs)
    assert not outcome.failures
    assert outcome.nothing < count
    for kind in (*emitted.FILES, *([emitted.ENGINE] if runs else [])):
        assert outcome.held[kind] == outcome.asked[kind] > 0, kind


@pytest.mark.slow
def test_a_key_that_changes_unnamed_is_seen(tmp_path, monkeypatch):
    """And so is a config that DeepSpeed refuses."""
    monkeypatch.chdir(tmp_path)
    flags = ("--model", "gpt2", "--gpu", "t4", "--host-memory", "64GiB", "--seq-len", "512")
    found = emitted.emit(Draw(flags=flags, config=None), tmp_path)
    values = found.config
    values["zero_optimization"]["reduce_bucket_size"] = 12345
    values["zero_optimization"]["sub_group_sizes"] = 1
    (tmp_path / "ds.json").write_text(emitted.json.dumps(values))
    with pytest.raises(AssertionError):
        emitted.keeps_the_config(found)
    with pytest.raises(Exception, match="sub_group_sizes"):
        emitted.passes_deepspeed(found)
