"""What scripts ask beside training: values of their own, devices, files, loaders, refusals."""

import json
import re
import struct

import pytest
from support.script_faults import FAULTS, TRAINS
from support.script_runs import model_folder, run_scripts

from zero_sizer import cli
from zero_sizer.dryrun import replies
from zero_sizer.dryrun.simulated import failures
from zero_sizer.errors import EngineError
from zero_sizer.questions import stopped

pytestmark = pytest.mark.slow

SAYS = {
    "E own error": ("RuntimeError: could not do it; caused by KeyError: 'x'", ".py:3"),
    "E silent assertion": (
        "AssertionError: assert len(set(t.dtype for t in tensors)) == 1 (deepspeed/runtime/zero/",
        ".py:9",
    ),
    "E twice": ("weight occurs multiple times in optimizer.param_groups", ".py:5"),
    "E unknown argument": ("TypeError: FusedAdam.__init__() got an unexpected", ".py:4"),
    "E too long": ("IndexError: index out of range in self: row 31 of an embedding of 16", ".py:3"),
    "E in backward": ("ValueError: not this gradient", ".py:4"),
    "E process of its own": ("overlap_step steps in a process of its own", ".py:11"),
    "E another process": ("SuperOffload steps in a process of its own", ".py:5"),
    "E no engine": ("made no engine", ""),
    "E no forward": ("ran no forward of its DeepSpeed engine", ""),
    "E another engine": ("torch's DistributedDataParallel, not with DeepSpeed", ".py:3"),
    "E generate": ("when its sequences end depends on values", ".py:3"),
    "E offline": ("OSError: ", ".py:3"),
    "E starts ranks": ("starts ranks of its own: torchrun", ".py:3"),
}
REMEDIES = {
    "E process of its own": '"overlap_step": false',
    "E another process": '"super_offload" out',
    "E no engine": "--deepspeed FILE",
    "E generate": "--generate-tokens",
    "E offline": "fetches nothing",
}
FINE = [name for name in FAULTS if not name.startswith("E ")]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> recording, or what went wrong; and the folder."""
    import torch

    folder = tmp_path_factory.mktemp("faults")
    model_folder(folder / "model")
    (folder / "diffusion" / "text_encoder").mkdir(parents=True)
    clip = {"model_type": "clip_text_model", "hidden_size": 32, "intermediate_size": 64}
    clip.update(num_hidden_layers=2, num_attention_heads=4, vocab_size=1024)
    (folder / "diffusion" / "text_encoder" / "config.json").write_text(json.dumps(clip))
    torch.save(torch.ones(3, 5), folder / "real.pt")
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [7, 3], "data_offsets": [0, 42]},
    }
    text = json.dumps(header).encode()
    (folder / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(42))
    lines = {}
    for name, script in FAULTS.items():
        path = folder / f"{name.replace(' ', '_').replace(chr(39), '')}.py"
        path.write_text(script)
        lines[name] = [path]
    return {**run_scripts(folder, lines), "folder": folder}


@pytest.mark.parametrize("name", FINE)
def test_a_script_goes_on_as_on_a_gpu(found, name):
    recording = found[name]
    assert not isinstance(recording, dict), (recording["message"], recording["trace"][-2500:])
    steps = [phase.step for phase in recording.first.phases if phase.name == "step"]
    assert steps == ([0] if name == "a short run says so" else [0, 1])


@pytest.mark.parametrize("name", SAYS)
def test_what_stops_a_script_is_one_line_with_its_place(found, name):
    reply = found[name]
    text, place = SAYS[name]
    assert text in reply["message"]
    assert reply["where"].endswith(place)
    assert REMEDIES.get(name, "") in reply["remedy"]
    assert "\n" not in reply["message"]
    assert "Traceback" in reply["trace"]


def test_an_error_within_a_package_that_is_run_names_the_packages_line():
    """Of ``trl grpo`` and its like no frame is the user's."""
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("no json")
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    reply = failures.reply(error)["error"]
    assert re.search(r"json/decoder\.py:\d+$", reply["where"])
    assert reply["message"].startswith("JSONDecodeError: Expecting value")


def test_what_deepspeed_raises_of_a_script_is_an_error_about_its_line(found):
    errors = {name: replies.error_in({"error": found[name]}, {}) for name in SAYS}
    own = {name for name, error in errors.items() if isinstance(error, EngineError)}
    assert own == {"E silent assertion", "E twice"}
    (finding,) = stopped.of_script(errors["E silent assertion"], "train.py").findings
    assert (finding.code, finding.line) == ("engine-stop", 9)
    assert finding.file.endswith(".py")
    assert "deepspeed/runtime/zero/" in finding.remedy


def test_an_error_of_its_config_decides_about_a_script(found):
    """Where another than DeepSpeed raises what check says of the config, as torch or Python."""
    error = replies.error_in({"error": found["E unknown argument"]}, {})
    assert (error.exit_code, stopped.of_script(error, "train.py")) == (3, None)
    error.config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "Adam", "params": {"foo": 1}},
    }
    script, config = stopped.of_script(error, "train.py").findings
    assert (script.line, script.message.startswith("the script ends: TypeError")) == (4, True)
    assert (config.code, config.key) == ("optimizer-argument", "optimizer.params.foo")


def test_notes_say_what_was_bounded_and_cut_short(found):
    (note,) = found["selections"].notes
    assert "every element" in note
    (note,) = found["a short run says so"].notes
    assert note == "the script ended after 1 of 2 optimizer steps"
    assert found["a loss is formatted, compared and added"].notes == ()


def test_the_traceback_is_shown_when_asked_for(tmp_path, monkeypatch, capfd):
    (tmp_path / "train.py").write_text(FAULTS["E own error"])
    monkeypatch.chdir(tmp_path)
    command = ["dryrun", "--how", "simulated", "--debug", "--", "python", "train.py"]
    assert cli.main(command) == 3
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("zero-sizer: train.py:3: RuntimeError: could not do it")
    assert [line for line in lines if line.startswith("Traceback")]


def test_the_worst_of_several_ranks_is_shown(tmp_path, monkeypatch, capfd):
    lines = TRAINS.replace(
        "for step",
        "extra = torch.empty(1 << 20 if engine.global_rank == 7 else 1).cuda()\nfor step",
    )
    (tmp_path / "train.py").write_text(lines)
    monkeypatch.chdir(tmp_path)
    where = ["--how", "simulated", "--rank", "worst", "--steps", "1", "--format", "json"]
    command = ["dryrun", *where, "--", "torchrun", "--nproc_per_node=8", "train.py"]
    assert cli.main(command) == 0
    answer = json.loads(capfd.readouterr().out)
    assert [rank["rank"] for rank in answer["ranks"]] == [0, 1, 7]
    assert "shown is rank 7" in answer["notes"][-1]
    assert answer["highest"]["rank"] == 7
    peaks = [max(p["device"]["gpu"]["max_allocated"] for p in r["phases"]) for r in answer["ranks"]]
    assert answer["highest"]["peak"]["gpu"] == max(peaks) > peaks[0]
