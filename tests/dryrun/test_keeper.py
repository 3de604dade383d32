"""Whatever ends a process, its children and their folder are gone; nobody waits for a time."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zero_sizer.dryrun.keeping import kept
from zero_sizer.errors import WitnessError

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by /proc"),
    pytest.mark.timeout(120),
]
# A child that leaves its group, with a child of its own; both hold the pipe open while they live.
CHILD = """
import os, sys, time
pipe = os.open(sys.argv[1], os.O_WRONLY)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
open(os.path.join(sys.argv[2], f"made-{os.getpid()}"), "w").close()
os.write(pipe, b"x")
time.sleep(600)
"""
ASKER = f"""
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
from zero_sizer.dryrun.keeping import kept
with kept("test") as keeper:
    keeper.start([sys.executable, "-c", '''{CHILD}''', sys.argv[1], str(keeper.folder)])
    print(keeper.folder, flush=True)
    keeper.wait()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL", "SIGHUP"])
def test_children_and_folder_go_with_the_asker(tmp_path, name):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    asker = subprocess.Popen(
        [sys.executable, "-c", ASKER, str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    signal.signal(signal.SIGINT, before)
    folder = Path(asker.stdout.readline().strip())
    assert folder.is_dir()
    seen = b""
    while len(seen) < 2:  # both children are there
        select.select([reading], [], [])
        seen += os.read(reading, 10)
    os.killpg(asker.pid, getattr(signal, name))
    asker.communicate()
    os.set_blocking(reading, True)
    assert os.read(reading, 10) == b""  # nobody has the writing end any more
    os.close(reading)
    keeper_ended(folder)
    assert list(tmp_path.glob("zero-sizer-*")) == []


def keeper_ended(folder: Path) -> None:
    """Waits until no process is the keeper of ``folder``; the test's time limit ends it."""
    prefix = os.fsencode(folder.name[: len("zero-sizer-test-")])
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            mine = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if prefix in words and f"TMPDIR={folder.parent}".encode() in mine:
            handle = os.pidfd_open(int(entry.name))
            select.select([handle], [], [])
            os.close(handle)


def test_what_was_started_tells_its_code_and_its_noise():
    with kept("test", noise=subprocess.PIPE) as keeper:
        keeper.start([sys.executable, "-c", "print('said'); raise SystemExit(7)"])
        assert list(keeper.noise) == ["said\n"]
        assert keeper.wait() == 7
        log = keeper.folder / "log"
        keeper.start(["sh", "-c", "echo $WORD"], log=log, env={"WORD": "again"})
        assert keeper.wait(60) == 0
        assert log.read_text() == "again\n"
        folder = keeper.folder
    assert not folder.exists()


def test_what_takes_too_long_is_stopped():
    with kept("test") as keeper:
        folder = keeper.folder
        keeper.start(["sleep", "600"])
        with pytest.raises(subprocess.TimeoutExpired):
            keeper.wait(0.01)
    assert not folder.exists()


def test_a_keeper_that_is_gone_is_said():
    with kept("test") as keeper:
        keeper.start(["sleep", "600"])
        keeper._process.kill()
        with pytest.raises(WitnessError, match="ended"):
            keeper.wait()
    import shutil

    shutil.rmtree(keeper.folder)


def test_an_interrupted_import_is_quiet():
    """The command line's modules are loaded where an interrupt is caught already."""
    program = (
        "import sys, _signal, builtins\n"
        "original = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'argparse': _signal.raise_signal(_signal.SIGINT)\n"
        "    return original(name, *rest)\n"
        "import zero_sizer.cli\n"
        "builtins.__import__ = interrupted\n"
        "sys.exit(zero_sizer.cli.main(['gpus']))\n"
    )
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    signal.signal(signal.SIGINT, before)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
