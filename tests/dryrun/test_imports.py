"""Dry runs import nothing from the folder they are started in; a script's own folder is its own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from zero_sizer.dryrun.keeping import SAFE_PATH, importable, kept
from zero_sizer.dryrun.launched import processes
from zero_sizer.dryrun.simulated import script
from zero_sizer.errors import WitnessError

TRAPS = ("numpy", "colorsys")  # a package; one of Python's own, which is quick to run
TRAP = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with modules named like others, that tell when they run."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(TRAP)
    monkeypatch.chdir(folder)
    return folder


def ran(folder):
    return sorted(path.stem for path in folder.glob("*.ran"))


def test_the_traps_work(here):
    """What Python does of itself: ``-m`` imports from the folder it is said in."""
    subprocess.run([sys.executable, "-m", "colorsys"], check=True)
    assert ran(here) == ["colorsys"]


def test_a_run_of_a_config_imports_nothing_from_here(here):
    with kept("test") as keeper:
        keeper.run_module("colorsys")
        assert keeper.wait() == 0
    assert ran(here) == []


class _StartedError(Exception):
    """Tells what would be started."""


def test_ranks_import_nothing_from_here(here):
    """The launcher's ranks inherit its variables."""

    def start(command, **how):
        raise _StartedError(how["env"])

    keeper = SimpleNamespace(start=start, folder=here)
    host = SimpleNamespace(keeper=keeper, ranks=1, name="localhost", environment={"A": "b"})
    with pytest.raises(_StartedError) as started:
        processes.launch([host], [], meet=None, timeout=1)
    (environment,) = started.value.args
    assert (environment["A"], environment[SAFE_PATH]) == ("b", "1")


@pytest.mark.parametrize("stated", [{}, {"PYTHONPATH": "theirs"}])
def test_a_scripts_process_imports_nothing_from_here(here, stated, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "ours")
    environment = script._environment(stated)
    where = environment["PYTHONPATH"].split(os.pathsep)
    assert where[-len(stated) - 1 :] == [*stated.values(), "ours"]
    subprocess.run([sys.executable, "-m", "colorsys"], env=environment, check=True)
    assert ran(here) == []


def test_installed_packages_stay_behind_pythons_own(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    root = str(Path(script.__file__).parents[3])
    assert importable({})["PYTHONPATH"] == root
    monkeypatch.setattr("sysconfig.get_path", lambda name: root)
    assert importable({})["PYTHONPATH"] == ""


@pytest.mark.slow
def test_a_script_imports_from_its_own_folder_and_sees_its_own_variables(here, tmp_path):
    pytest.importorskip("deepspeed")
    home = tmp_path / "home"
    home.mkdir()
    (home / "beside.py").write_text(TRAP)
    (home / "train.py").write_text(
        f"import os, sys, beside, colorsys\nassert {SAFE_PATH!r} not in os.environ\nsys.exit('end')"
    )
    with pytest.raises(WitnessError, match="ended with exit status end"):
        script.run_script(script.ScriptRequest(command=[str(home / "train.py")]))
    assert (ran(home), ran(here)) == (["beside"], [])
