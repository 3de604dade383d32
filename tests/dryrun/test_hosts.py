"""A launched run over two hosts: every rank recorded, and whatever ends it ends it everywhere.

The hosts are network namespaces with sshd; see ``support.hosts`` for machines that lack either.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

from support.hosts import two_hosts

from zero_sizer import cli
from zero_sizer.dryrun import recording

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc"),
]
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "zero_optimization": {"stage": 2, "reduce_bucket_size": 1_000_000},
}
WIDTH = 512
MODEL = f"""
import os, threading
import torch

class Net(torch.nn.Module):
    def __init__(self, hangs):
        super().__init__()
        self.linear = torch.nn.Linear({WIDTH}, {WIDTH})
        self.hangs = hangs

    def forward(self, input_ids, labels):
        if self.hangs:
            os.mkdir(os.path.join("pids", str(os.getpid())))
            threading.Event().wait()
        return self.linear(input_ids[:, :1].expand(-1, {WIDTH}).to(self.linear.weight.dtype)).sum()

def works():
    return Net(False)

def hangs():
    return Net("RANK" in os.environ)
"""
# Both hosts have a child, and a grandchild that left its group.
ASKER = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
from zero_sizer.dryrun.keeping import answers
from zero_sizer.dryrun.launched.hosts import Hosts, reached
from zero_sizer.errors import ZeroSizerError
asked = Hosts(slots={"a": 1, "b": 1}, rsh=sys.argv[1], silence=float(sys.argv[2]))
try:
    with reached(asked) as hosts:
        for host in hosts:
            host.keeper.start(["sh", "-c", "setsid sleep 600 & sleep 600"])
        print("started", flush=True)
        list(answers([host.keeper for host in hosts], "code"))
except ZeroSizerError as error:
    print(error, flush=True)
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with two_hosts(tmp_path_factory.mktemp("hosts")) as found:
        yield found


@pytest.fixture
def job(tmp_path):
    """A folder with a job, and the words that ask for it."""
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "pids").mkdir()
    return ["-m", "zero_sizer", "dryrun", "ds.json", "--seq-len", "8", "--how", "launched"]


def test_ranks_of_two_hosts_train_together_and_are_recorded(
    hosts, job, tmp_path, capsys, monkeypatch
):
    output = ["--output", "out.json", "--steps", "2", "--model", "net:works"]
    before = hosts.crossed() if hosts.how != "names" else 0
    process = hosts.start([*job, *output, *hosts.options], tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert hosts.left() == []
    found = recording.read(tmp_path / "out.json")
    assert [rank.rank for rank in found.ranks] == [0, 1]
    table = [line.split()[:2] for line in out.splitlines() if line.startswith(("   0", "   1"))]
    assert table == [["0", "a"], ["1", "b"]]
    # The weights go to rank 1 once, each gradient both ways in every step.
    if hosts.how != "names":
        assert hosts.crossed() - before > 3 * 2 * WIDTH * WIDTH
    # What each host holds is half of what a prediction for two ranks has.
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(".")
    words = ["crosscheck", "ds.json", "--model", "net:works", "--seq-len", "8"]
    assert cli.main([*words, "--recording", "out.json", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    states = [r for r in rows if r["quantity"] == "model states" and r["phase"] != "forward"]
    assert {row["rank"] for row in states} == {0, 1}
    assert [row for row in states if row["predicted"] != row["witnessed"]] == []


def test_nothing_is_left_on_either_host_when_the_command_is_killed(hosts, job, tmp_path):
    process = hosts.start([*job, "--model", "net:hangs", *hosts.options], tmp_path)
    # Both ranks are in their forward.
    wait_for(lambda: len(list((tmp_path / "pids").iterdir())) == 2, process)
    ranks = {int(path.name) for path in (tmp_path / "pids").iterdir()}
    assert {len(ranks & set(hosts.processes(host))) for host in "ab"} == {1}
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert hosts.left() == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL", "SIGHUP"])
def test_every_signal_ends_both_hosts(hosts, tmp_path, name):
    process = ask(hosts, tmp_path)
    os.killpg(process.pid, getattr(signal, name))
    process.communicate()
    assert process.returncode != 0
    assert hosts.left() == []


def test_a_host_whose_connection_ends_is_named_and_the_other_is_cleared(hosts, tmp_path):
    process = ask(hosts, tmp_path)
    for pid in hosts.processes("b"):  # as when it crashes
        with contextlib.suppress(ProcessLookupError):  # it ended with another of them
            os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate()
    assert "host b was lost" in out
    of_keeper = [str(path) for path in (hosts.folder / "b").glob("zero-sizer*")]
    assert hosts.left() == of_keeper  # which was killed, so it could not remove its folder
    for path in of_keeper:
        Path(path).rmdir()


def test_a_cable_that_is_pulled_ends_both_hosts(tmp_path):
    with two_hosts(tmp_path) as hosts:
        if hosts.how != "ssh":
            pytest.skip("needs sshd in network namespaces: elsewhere no connection can be cut")
        process = ask(hosts, tmp_path, silence=4)
        hosts.pull_the_cable()
        out, _ = process.communicate()
        assert "host b was lost: its connection was silent for 4 s" in out
        assert hosts.left() == []


def test_a_host_that_nobody_reaches_is_said_in_the_words_of_ssh(hosts, job, tmp_path):
    (tmp_path / "hostfile").write_text("a slots=1\nnowhere.invalid slots=1\n")
    (tmp_path / "rsh").write_text("#!/bin/sh\n[ $1 = a ] && exec cat\necho no route >&2\nexit 255")
    (tmp_path / "rsh").chmod(0o700)
    options = ["--hostfile", "hostfile", "--rsh", "./rsh", "--model", "gpt2"]
    process = hosts.start([*job, *options], tmp_path)
    _, err = process.communicate()
    assert process.returncode == 3
    assert "host nowhere.invalid was lost: its connection ended: no route" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("hostfile", "options", "expected"),
    [
        ("-oProxyCommand=id slots=1", [], "cannot be passed on to another host"),
        ("a;id slots=1", [], "cannot be passed on to another host"),
        ("a slots=1", ["--rsh", "no-such-command"], "--rsh: no command"),
        ("a slots=1", ["--ranks", "2"], "--ranks: the slots of --hostfile say how many"),
        ("a slots=1", ["--nodes", "2"], "--nodes"),
    ],
)
def test_what_cannot_be_a_run_over_hosts_starts_nothing(
    job, tmp_path, monkeypatch, capsys, hostfile, options, expected
):
    (tmp_path / "hosts").write_text(hostfile + "\n")
    monkeypatch.chdir(tmp_path)
    words = [*job[2:], "--model", "gpt2", "--hostfile", "hosts", *options]
    assert cli.main(words) == 2
    assert expected in capsys.readouterr().err


def ask(hosts, folder: Path, silence: float = 30) -> "subprocess.Popen[str]":
    """Someone with two processes on each host."""
    process = hosts.start(["-c", ASKER, hosts.rsh, str(silence)], folder)
    assert process.stdout.readline() == "started\n"
    wait_for(lambda: all(len(hosts.processes(host)) == 4 for host in "ab"), process)
    return process


def wait_for(is_so: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Until it is so; fails when the command ends before."""
    ended = os.pidfd_open(process.pid)
    while not is_so():
        if select.select([ended], [], [], 0.05)[0]:
            pytest.fail(str(process.communicate()))
    os.close(ended)
