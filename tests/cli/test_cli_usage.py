"""The command line's own refusals: one line each, before any work, and nothing ignored."""

import importlib
import json
from pathlib import Path

import pytest

from zero_sizer import cli

DEMO = str(Path(__file__).parents[2] / "deepspeed_configs" / "demo.json")
CHECK = ["check", DEMO, "--model", "gpt2"]


def refused(capsys, *arguments):
    """(exit code, what stands on stderr) of a command that prints no answer."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse's own refusals
        code = stop.code
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["checks"], "did you mean check?"),
        (["check"], "required: CONFIG (`zero-sizer check -h`"),
        ([*CHECK, "--attenshun", "sdpa"], "--attenshun sdpa (did you mean --attention?)"),
        ([*CHECK, "--gpus", "8"], "--gpus 8 (did you mean --gpus-per-node?)"),
        ([*CHECK, "--num_gpus=8"], "--num_gpus=8 (did you mean --gpus-per-node?)"),
        ([*CHECK, "--nnodes", "2"], "--nnodes 2 (did you mean --nodes?)"),
        ([*CHECK, "--cutoff_len", "9"], "--cutoff_len 9 (did you mean --seq-len?)"),
        ([*CHECK, "--seq-len", "4.5k"], "--seq-len: '4.5k' is not a whole number"),
        (["check", DEMO, "--model", "grok-1-314b"], "'grok-1-314b' (any other by its config.json"),
        (["check", DEMO, "--model", "lama-3-8b"], "'lama-3-8b' (did you mean llama-3-8b or"),
        ([*CHECK, "--gpu", "a100"], "'a100' could be any of a100-40gb, a100-80gb"),
        ([*CHECK, "--attention", "flsh"], "--attention: invalid choice: 'flsh'"),
        ([*CHECK, "--nodes", "two"], "--nodes: 'two' is not a whole number"),
        ([*CHECK, "another.json"], "unrecognized arguments: another.json"),
        (["dryrun", DEMO], "required: --how"),
        ([*CHECK, "--gpu-memory", "80"], "--gpu-memory: '80' is 80 bytes"),
        ([*CHECK, "--gpu-memory", "80"], "write 80GiB"),
        ([*CHECK, "--host-memory", "1.5"], "write 1.5GiB"),
        ([*CHECK, "--nvme", "1MB"], "between 1 MiB and"),
        (["dryrun", "--how", "simulated", "--host-memory", "64", "--", "x.py"], "write 64GiB"),
        ([*CHECK, "--checkpointing-how", "on"], "--checkpointing-how: 'on' is none of every-K"),
        (
            [*CHECK, "--checkpointing-how", "every-2", "--no-checkpointing"],
            "--no-checkpointing that there is none",
        ),
        (["choose", "--model", "gpt2", "--emit", "no/such/ds.json"], "--emit: no folder 'no/such'"),
        (["choose", "--model", "gpt2", "--emit", "."], "--emit: . is a folder"),
        (["size", "--model", "gpt2", "--nodes", "4"], "--nodes: does not apply"),
        (
            ["dryrun", DEMO, "--model", "gpt2", "--how", "launched", "--gpus-per-node", "8"],
            "--gpus-per-node: does not apply to --how launched",
        ),
        ([*CHECK, "--adapter", "="], "'=' is not one more setting"),
        ([*CHECK, "--adapter", "targets=foo"], "end in c_attn, c_proj, c_fc, lm_head"),
        (["dryrun", DEMO, "--how", "simulated", "--output", "no/x"], "--output: no folder 'no'"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(capsys, arguments, says):
    code, err = refused(capsys, *arguments)
    assert code == 2
    assert err.startswith("zero-sizer: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_checkpointing_does_not_undo_how(capsys, order):
    options = [["--checkpointing"], ["--checkpointing-how", "every-2"]]
    first, second = (options[i] for i in order)
    cli.main([*CHECK, *first, *second, "--format", "json"])
    said = json.loads(capsys.readouterr().out)["job"]["checkpointing"]
    assert said == {"value": "every-2", "origin": "--checkpointing-how"}


def test_what_deepspeed_says_while_it_loads_stays_out_of_the_answer(capsys, tmp_path, monkeypatch):
    """On a machine without a GPU its logger warns; the JSON of crosscheck would not parse."""
    (tmp_path / "noisy_helper.py").write_text("print('warning')\ndef estimate(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    helpers = importlib.import_module("zero_sizer.crosscheck.helpers")
    assert helpers._helper("noisy_helper", "estimate") is not None
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning\n")
