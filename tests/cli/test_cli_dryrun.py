"""``dryrun`` and ``crosscheck`` on simulated and solo ranks, through the command line."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from support.simulated_jobs import HOST, TINY_LLAMA, config_of

from zero_sizer import cli
from zero_sizer.allocator.caching import replay
from zero_sizer.allocator.settings import parse_alloc_conf
from zero_sizer.cli import command
from zero_sizer.dryrun import recording
from zero_sizer.dryrun.simulated.outputs import Outputs
from zero_sizer.errors import InputError
from zero_sizer.report import recording as report
from zero_sizer.simulator.tracker import Tracker
from zero_sizer.units import MIB

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parents[1] / "data" / "scripts"
CLUSTER = ("--nodes", "2", "--gpus-per-node", "2")
WORKLOAD = ("--seq-len", "32", "--attention", "eager")
BUCKET = {"reduce_bucket_size": 20_000}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Arguments that describe a small ZeRO-3 job whose optimizer lies in pinned memory."""
    folder = tmp_path_factory.mktemp("job")
    zero = {"stage": 3, "offload_optimizer": {**HOST, "pin_memory": True}, **BUCKET}
    (folder / "ds.json").write_text(json.dumps(config_of(zero)))
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA))
    return [str(folder / "ds.json"), "--model", str(folder / "config.json"), *CLUSTER, *WORKLOAD]


def refused(capsys, *arguments):
    """(exit code, the one line on stderr) of a refused command."""
    try:
        code = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse's own refusals
        code = stop.code
    out, err = capsys.readouterr()
    assert out == ""
    return code, err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "give CONFIG, or a script after --"),
        (["--"], 2, "no script after --"),
        (["ds.json", "--", "train.py"], 2, "not both"),
        (["--", "no/such/train.py"], 2, "no script 'no/such/train.py'"),
        (["--seq-len", "8", "--", "train.py"], 2, "--seq-len: does not apply to a script"),
        (["--no-checkpointing", "--", "train.py"], 2, "--checkpointing: does not apply"),
        (["--layers", "1", "--", "train.py"], 2, "--layers: does not apply to a script"),
        (["--host-memory", "lots", "--", "train.py"], 2, "--host-memory: "),
        (["--rank", "-1", "ds.json"], 2, "--rank"),
        (["--steps", "0", "ds.json"], 2, "--steps"),
        (["--ranks", "4", "ds.json"], 2, "--nodes and --gpus-per-node say how many ranks"),
        (["--generate-tokens", "8", "ds.json"], 2, "--generate-tokens: applies to a script after"),
        (["--debug", "ds.json"], 2, "--debug: applies to a script after"),
        (["--rank", "best", "ds.json"], 2, "from 0 on, or worst"),
        (
            ["--gpus-per-node", "4", "--", "torchrun", "--nproc_per_node", "8", "-m", "pkg"],
            *(2, "--gpus-per-node: 4, and the launcher line says 8"),
        ),
        (
            ["--rank", "worst", "--trace", "t.jsonl", "--", "torchrun", "-m", "pkg"],
            *(2, "--trace, --snapshot: of one rank"),
        ),
        (
            ["--", "jsrun", "-n", "8", "python", "t.py"],
            3,
            "'jsrun' is no launcher that is known",
        ),
        (["--timeout", "60", "ds.json"], 2, "--timeout: does not apply to --how simulated"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(capsys, arguments, code, says):
    found, line = refused(capsys, "dryrun", "--how", "simulated", *arguments)
    assert found == code
    assert says in line


@pytest.mark.parametrize("how", ["solo", "launched"])
def test_a_script_needs_the_simulation(capsys, how):
    code, line = refused(capsys, "dryrun", "--how", how, "--", "train.py")
    assert code == 3
    assert f"not --how {how}" in line


@pytest.mark.parametrize("how", ["solo", "launched"])
def test_only_simulated_runs_leave_a_trace(capsys, job, how):
    code, line = refused(capsys, "dryrun", *job, "--how", how, "--trace", "t.jsonl")
    assert code == 2
    assert "--trace: does not apply" in line


def test_a_launched_run_has_no_one_rank(capsys, job):
    code, line = refused(capsys, "dryrun", *job, "--how", "launched", "--rank", "1")
    assert (code, "--rank: does not apply" in line) == (2, True)


def test_crosscheck_without_a_run_refuses_run_options(capsys, job):
    code, line = refused(capsys, "crosscheck", *job, "--witness", "rules", "--steps", "3")
    assert (code, "--steps: does not apply" in line) == (2, True)


def test_what_follows_the_dashes_is_the_scripts_own():
    arguments, script = command._split_script(
        ["dryrun", "--nodes", "2", "--", "t.py", "--nodes", "9"]
    )
    assert arguments == ["dryrun", "--nodes", "2"]
    assert script == ["t.py", "--nodes", "9"]


def test_a_folder_that_is_not_there_is_refused_before_the_run(tmp_path):
    for name in ("trace", "snapshot"):
        with pytest.raises(InputError, match=f"--{name}: no folder"):
            Outputs(**{name: str(tmp_path / "no" / "file")}).check()
    Outputs(trace=str(tmp_path / "file")).check()


def test_a_snapshot_holds_the_gpus_events_only(tmp_path):
    events = [
        ["alloc", 0, 5_000_000, 0, "gpu", "init", "layers.0"],
        ["alloc", 1, 7_000_000, 0, "host", "init", ""],
        ["alloc", 2, 4096, 0, "gpu", "forward", ""],
        ["free", 1, 7_000_000, 0, "host", "step", ""],
    ]
    path = tmp_path / "s.pickle"
    Outputs(snapshot=str(path)).write(events)
    snapshot = pickle.loads(path.read_bytes())  # noqa: S301 (made here)
    assert sum(segment["requested_size"] for segment in snapshot["segments"]) == 5_004_096
    names = [
        [frame["name"] for frame in entry["frames"]]
        for entry in snapshot["device_traces"][0]
        if entry["action"] == "alloc"
    ]
    assert names == [["layers.0", "init"], ["forward"]]


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_run_reserves_as_the_allocator_options_in_the_environment_say(monkeypatch, name):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    monkeypatch.setenv(name, "expandable_segments:True")
    tracker = Tracker(keep_events=True)
    monkeypatch.delenv(name)
    plain = Tracker()
    for each in (tracker, plain):
        block, counted = each.allocate("gpu", 11 * MIB)
        each.allocate("gpu", 3 * MIB)
        each.free("gpu", block, 11 * MIB, counted)
    expected = replay(tracker.events, parse_alloc_conf("expandable_segments:True")).end.reserved
    assert tracker.reserved("gpu") == expected
    assert expected != plain.reserved("gpu")


def test_a_wrong_allocator_option_is_named(monkeypatch):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable:True")
    with pytest.raises(InputError, match="PYTORCH_CUDA_ALLOC_CONF: unknown allocator option"):
        Tracker()


def test_importing_the_package_imports_no_torch_and_offers_simulate():
    code = "import sys, zero_sizer; f = zero_sizer.simulate; print(f.__name__, *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    name, *modules = done.stdout.split()
    assert name == "simulate"
    assert not {"torch", "deepspeed", "transformers"} & set(modules)


def test_the_package_has_no_other_lazy_names():
    import zero_sizer

    with pytest.raises(AttributeError, match="no attribute 'simulated_annealing'"):
        _ = zero_sizer.simulated_annealing


def test_the_log_shown_is_of_init_and_the_ends_of_one_micro_step(capsys):
    def block(title):
        return (title, "MA 0.0 GB", "CPU Virtual Memory:  used = 0.0 GB")

    titles = ["After init", "Engine before forward", "In ipg_epilogue", "Engine after step"]
    log = [line for title in (*titles, *titles[1:]) for line in block(title)]
    report._log(log)
    shown = capsys.readouterr().out.splitlines()
    kept = ("After init", "Engine before forward", "Engine after step")
    assert shown[:-2] == [line for title in kept for line in block(title)]
    assert shown[-2].startswith(f"... and {len(log) - 9} more lines")


@pytest.fixture(scope="module")
def ran(job, tmp_path_factory):
    """Folder with what one simulated run wrote: r.json, t.jsonl, s.pickle, and its text."""
    folder = tmp_path_factory.mktemp("ran")
    files = ["--output", folder / "r.json", "--trace", folder / "t.jsonl"]
    files += ["--snapshot", folder / "s.pickle"]
    options = ["--how", "simulated", "--rank", "3", "--layers", "2", "--steps", "3"]
    trap = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    (folder / "numpy.py").write_text(trap)
    done = _command("dryrun", *job, *options, *files, folder=folder)
    assert done.returncode == 0, done.stderr
    assert not (folder / "numpy.ran").exists()  # nothing is imported from here
    (folder / "text").write_text(done.stdout)
    return folder


def _said(capsys, *arguments):
    """(exit code, stdout, stderr) of a command in this process: simulated ranks are forks then."""
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def _command(*arguments, folder=ROOT):
    """In a process of its own, as in a terminal; each rank imports torch and DeepSpeed anew."""
    return subprocess.run(
        [sys.executable, "-m", "zero_sizer", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        check=False,
    )


@pytest.mark.slow
def test_the_recording_is_of_the_rank_layers_and_steps_asked_for(ran):
    found = recording.read(ran / "r.json")
    one = ("forward", "backward", "step")
    expected = [("init", 0), *((name, step) for step in range(3) for name in one)]
    assert (found.how, found.first.rank, found.world_size) == ("simulated", 3, 4)
    assert [(phase.name, phase.step) for phase in found.first.phases] == expected
    assert found.job["hf_config"]["num_hidden_layers"] == 2
    assert "cut to 2 layers" in found.job["name"]


@pytest.mark.slow
def test_the_trace_replayed_gives_the_recordings_bytes(ran):
    events = [json.loads(line) for line in (ran / "t.jsonl").read_text().splitlines()]
    live = {}
    for event in events:
        if event["kind"] == "alloc":
            live[event["block"]] = event
        else:
            live.pop(event["block"], None)
    on_gpu = [event for event in live.values() if event["device"] == "gpu"]
    rounded = sum(-(-event["num_bytes"] // 512) * 512 for event in on_gpu)
    last = recording.read(ran / "r.json").first.phases[-1]
    assert rounded == last.device["gpu"]["allocated"]


@pytest.mark.slow
def test_torchs_own_viewer_opens_the_snapshot(ran):
    import importlib

    viewer = importlib.import_module("torch.cuda._memory_viz")
    snapshot = pickle.loads((ran / "s.pickle").read_bytes())  # noqa: S301 (made here)
    last = recording.read(ran / "r.json").first.phases[-1]
    reserved = sum(segment["total_size"] for segment in snapshot["segments"])
    assert reserved == last.device["gpu"]["reserved"]
    assert f"total_reserved: {reserved / 2**20:.1f}MiB" in viewer.segsum(snapshot)
    assert "alloc" in viewer.trace(snapshot)
    assert "<html" in viewer.trace_plot(snapshot).lower()


@pytest.mark.slow
def test_a_recording_is_checked_on_its_own_ranks_with_pinned_buffers_as_rounded(ran, job, capsys):
    options = ["--recording", str(ran / "r.json"), "--format", "json"]
    assert cli.main(["crosscheck", *job, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["rank"] for row in found["rows"]} == {3}
    states = [row for row in found["rows"] if row["quantity"] == "model states"]
    assert [row for row in states if row["predicted"] != row["witnessed"]] == []
    host_peaks = [r for r in found["rows"] if (r["device"], r["quantity"]) == ("host", "peak")]
    assert {row["phase"] for row in host_peaks} == {"init", "forward", "backward", "step"}
    assert max(abs(row["relative_error"]) for row in host_peaks) < 0.001
    gaps = [abs(cause["predicted"] - cause["witnessed"]) for cause in found["causes"]]
    assert gaps == sorted(gaps, reverse=True)
    assert all(cause["entries"] or cause["seen"] for cause in found["causes"])


@pytest.mark.slow
def test_the_text_shows_every_device_and_deepspeeds_own_lines(ran):
    text = (ran / "text").read_text()
    assert "rank 3 of 4" in text
    (heads,) = [line for line in text.splitlines() if line.startswith("GiB ")]
    for head in ("GPU end", "GPU peak", "reserved", "host end", "host peak", "pinned"):
        assert head in heads
    assert "After initializing optimizer states" in text
    assert "MA 0.0 GB         Max_MA 0.0 GB" in text
    assert "CUDA context" in text


@pytest.mark.slow
def test_crosscheck_lays_simulated_and_solo_ranks_of_one_job_side_by_side(job, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    witnesses = ["--witness", "helpers", "--witness", "simulated", "--witness", "solo"]
    code, out, err = _said(capsys, "crosscheck", *job, *witnesses, "--layers", "1", "--ranks", "2")
    assert code == 0, err
    (heads,) = [line for line in out.splitlines() if "solo" in line and "predicted" in line]
    assert heads.split() == [
        *("device", "phase", "what", "predicted", "simulated", "error", "solo", "error"),
    ]
    states = [line for line in out.splitlines() if " step " in line and " model states " in line]
    assert [line.count("+0.00%") for line in states] == [2, 2], out  # both witnesses
    assert "Behind the largest differences from simulated:" in out
    assert "rank 0 of 2" in out


@pytest.mark.slow
def test_a_script_runs_unchanged_with_its_own_arguments(tmp_path, capsys):
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(config_of({"stage": 2})))
    files = ["--trace", tmp_path / "t.jsonl", "--snapshot", tmp_path / "s.pickle"]
    options = ["--gpu", "a100-80gb", "--steps", "1", "--rank", "2", "--format", "json", *files]
    script = ["--", SCRIPTS / "plain_loop.py", config]
    code, out, err = _said(capsys, "dryrun", "--how", "simulated", *CLUSTER, *options, *script)
    assert code == 0, err[-2000:]
    found = recording.from_json(json.loads(out))
    assert (found.world_size, found.first.rank) == (4, 2)
    assert [phase.name for phase in found.first.phases] == ["init", "forward", "backward", "step"]
    modules = {
        json.loads(line)["module"] for line in (tmp_path / "t.jsonl").read_text().splitlines()
    }
    assert any("layers.1" in module for module in modules)
    snapshot = pickle.loads((tmp_path / "s.pickle").read_bytes())  # noqa: S301 (made here)
    held = sum(segment["allocated_size"] for segment in snapshot["segments"])
    assert held == found.first.phases[-1].device["gpu"]["allocated"]


@pytest.mark.slow
def test_a_script_that_fails_is_one_line_and_code_3(tmp_path, capsys):
    script = ["--", SCRIPTS / "plain_loop.py", tmp_path / "missing.json"]
    code, _, err = _said(capsys, "dryrun", "--how", "simulated", *script)
    assert code == 3
    assert "FileNotFoundError" in err.splitlines()[-1]
    assert "Traceback" not in err
