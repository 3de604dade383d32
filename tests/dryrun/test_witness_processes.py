"""A launched run leaves no process behind, whatever ends it, and says in one line what did.

Every rank opens a pipe for writing and keeps it: it ends when, and only when, the last rank is
gone. So the tests wait for an event and not for a time.
"""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zero_sizer import cli
from zero_sizer.dryrun import keeper

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
RANKS = 2
MODEL = """
import os, signal, threading
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, input_ids, labels):
        PIPE.write(f"{os.getpid()}\\n")
        PIPE.flush()
        misbehave(int(os.environ["RANK"]))
        return self.linear(input_ids[:, :4].float()).sum()

def build():
    global PIPE
    if "RANK" in os.environ:  # in a rank, not where the shapes are read
        PIPE = open("pipe", "w")
    return Net()

def misbehave(rank):
"""
RAISES = MODEL + "    if rank == 1: raise RuntimeError('the model\\n is broken')\n"
IS_KILLED = MODEL + "    if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
HANGS = MODEL + "    threading.Event().wait()\n"
WORKS = MODEL + "    pass\n"


class Pipe:
    """The reading end."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def wait_for_lines(self, count: int, process: "subprocess.Popen[str]") -> None:
        """Until the ranks have written this many lines; fails when the command ends before."""
        text, ended = b"", os.pidfd_open(process.pid)
        while text.count(b"\n") < count:
            ready, _, _ = select.select([self._file, ended], [], [])
            if ended in ready:
                pytest.fail(process.communicate()[1])
            text += os.read(self._file, 4096)
        os.close(ended)

    def wait_for_end(self) -> None:
        """Until nobody has the writing end any more."""
        os.set_blocking(self._file, True)
        while os.read(self._file, 4096):
            pass
        os.close(self._file)


def is_running(pid: int) -> bool:
    """Whether a process still runs; one that ended and nobody has asked about does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def pipe(tmp_path):
    return Pipe(tmp_path / "pipe")


@pytest.fixture
def start(tmp_path, monkeypatch, pipe):
    """Starts ``dryrun --how launched`` on a model of the given source, in its own process."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {"stage": 2},
    }
    (tmp_path / "ds.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    # A shell ignores Ctrl-C for what it starts in the background, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = []

    def starter(source: str, *options: str) -> subprocess.Popen[str]:
        (tmp_path / "net.py").write_text(source)
        command = [sys.executable, "-m", "zero_sizer", "dryrun", "ds.json", "--how", "launched"]
        command += ["--model", "net:build", "--seq-len", "8", "--ranks", str(RANKS), *options]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"},
        )
        running.append(process)
        return process

    yield starter
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()
    signal.signal(signal.SIGINT, before)


def test_a_run_that_works_says_so_and_ends(start, pipe):
    process = start(WORKS, "--output", "out.json", "--format", "json")
    out, err = process.communicate()
    pipe.wait_for_end()
    assert process.returncode == 0, err
    printed = json.loads(out)
    assert {"verdict", "reasons"} <= printed.keys()
    recorded = json.loads(Path("out.json").read_text())
    assert recorded.items() <= printed.items()
    assert len(json.loads(out)["ranks"]) == RANKS


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RAISES, "rank 1 failed: RuntimeError: the model is broken"),
        (IS_KILLED, " was killed"),  # by the launcher's code or by the silence of rank 1
    ],
)
def test_a_rank_that_dies_takes_the_others_along_and_is_named(start, pipe, source, expected):
    process = start(source)
    _, err = process.communicate()
    pipe.wait_for_end()
    assert process.returncode == 3
    assert err.count("\n") == 1
    assert expected in err


def test_a_run_that_takes_too_long_is_stopped(start, pipe):
    process = start(HANGS, "--timeout", "10")
    _, err = process.communicate()
    pipe.wait_for_end()
    assert process.returncode == 3
    assert "took more than 10 s and was stopped" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_stopping_the_command_stops_every_process_it_started(start, pipe, number, code):
    process = start(HANGS)
    pipe.wait_for_lines(RANKS, process)  # every rank is in its forward
    started = keeper.descendants(process.pid)
    assert len(started) >= RANKS + 2  # the launcher's two processes and the ranks
    process.send_signal(number)
    process.communicate()
    pipe.wait_for_end()
    assert process.returncode == code
    if number != signal.SIGKILL:  # then the keeper ends them, a moment later
        assert [pid for pid in started if is_running(pid)] == []


def test_an_old_deepspeed_is_said_at_once(monkeypatch, capsys):
    from zero_sizer.dryrun import packages

    monkeypatch.setattr(packages.importlib.metadata, "version", lambda name: "0.16.9")
    demo = str(ROOT / "deepspeed_configs" / "demo.json")
    for how in ("solo", "launched"):
        assert cli.main(["dryrun", demo, "--model", "gpt2", "--how", how]) == 3
        assert "needs DeepSpeed 0.19 or newer, not 0.16.9" in capsys.readouterr().err


def test_missing_packages_are_said_at_once(start, monkeypatch, capsys):
    from zero_sizer.dryrun import packages

    monkeypatch.setattr(packages, "PACKAGES", ("torch", "a_package_nobody_has"))
    Path("net.py").write_text(WORKS)
    monkeypatch.syspath_prepend(".")
    code = cli.main(["dryrun", "ds.json", "--model", "gpt2", "--how", "launched"])
    assert code == 3
    assert "a_package_nobody_has" in capsys.readouterr().err
