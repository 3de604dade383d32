"""Keywords of the integrations: one that nobody reads is an error, with the nearest that is."""

import pytest
import torch

from zero_sizer.api import JobError
from zero_sizer.integrations import lightning, transformers
from zero_sizer.integrations.loop import watch


def watched(**keywords):
    with watch(torch.nn.Linear(1, 1), **keywords):
        pass


FRONT_DOORS = {
    "watch": watched,
    "transformers": transformers.MemoryCallback,
    "lightning": lightning.MemoryCallback,
}
WRONG = {
    "sequence": ({"sequence": 5}, "did you mean sequences?"),
    "seqlen": ({"seqlen": 4096}, "did you mean seq_len?"),
    "of its own": ({"outputs": "x.json"}, "did you mean output?"),
    "nothing near": ({"foo": 1}, "it takes output, "),
    "seen of the run": ({"adapter": "r=8"}, "it is seen of the run itself"),
    "of another question": ({"target_days": 3}, "no prediction of a run reads it"),
    "a word for a number": ({"seq_len": "long"}, "seq_len"),
    "a negative": ({"num_workers": -1}, "num_workers"),
    "a choice": ({"attention": "flesh"}, "flash"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("door", FRONT_DOORS)
def test_what_nobody_reads_is_one_error_before_the_run(door, case, capsys):
    keywords, says = WRONG[case]
    if door == "watch" and says.startswith("it takes"):
        says = "it takes model, optimizer, output, "
    with pytest.raises(JobError) as raised:
        FRONT_DOORS[door](**keywords)
    text = str(raised.value)
    assert says in text
    assert next(iter(keywords)) in text
    assert "\n" not in text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("door", FRONT_DOORS)
def test_what_a_prediction_reads_is_taken(door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FRONT_DOORS[door](
        seq_len=4096,
        checkpointing_how="every-2",
        gpu="h100-80gb",
        host_memory="2TiB",
        cluster_profile="cluster.json",  # read when the run begins
        kernels=None,
        output=tmp_path / "memory.json",
    )
