"""The plugin in pytest itself: marker, fixture, job files as tests."""

import json
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from support.answers import CONFIG, JOB

ROOT = Path(__file__).parents[2]
pytest_plugins = ["pytester"]

HEAD = f"""
import pytest
CONFIG = {CONFIG!r}
JOB = {JOB!r}
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """pytest with the plugin alone, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def start(*words):
        plugin = ("-p", "zero_sizer.pytest_plugin", "-p", "no:cacheprovider", "-rA")
        return pytester.runpytest_subprocess(*plugin, "--strict-markers", "-W", "error", *words)

    return start


def job_file(pytester, name="job.yaml", **changes):
    job = {"model": "gpt2", "deepspeed": CONFIG, "workload": {"seq_len": 128}}
    job["cluster"] = {"gpu": "l4", "gpus_per_node": 2}
    path = pytester.path / name
    path.write_text(json.dumps({**job, **changes}))
    return path


TOO_LARGE = {"model": "llama-2-7b"}


def test_the_marker_passes_what_fits_and_fails_what_does_not(pytester, run):
    pytester.makepyfile(
        HEAD
        + """
@pytest.mark.fits(CONFIG, **JOB)
def test_small():
    pass

@pytest.mark.fits(CONFIG, **{**JOB, "model": "llama-2-7b"})
def test_large():
    raise AssertionError("its body runs")

@pytest.mark.fits(CONFIG, **JOB)
def test_body():
    assert 1 == 2
"""
    )
    done = run()
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["*DOES NOT FIT*each GPU is * GiB short*"])
    done.stdout.no_fnmatch_line("*its body runs*")
    done.stdout.fnmatch_lines(["*assert 1 == 2*"])


def test_a_config_is_beside_the_test_or_of_the_project(pytester, run):
    below = pytester.mkdir("tests")
    (below / "near.json").write_text(json.dumps(CONFIG))
    (pytester.path / "far.json").write_text(json.dumps(CONFIG))
    (below / "test_it.py").write_text(
        HEAD
        + """
@pytest.mark.fits("near.json", **JOB)
@pytest.mark.fits("far.json", **JOB)
def test_both():
    pass

@pytest.mark.fits("nowhere.json", **JOB)
def test_neither():
    pass
"""
    )
    pytester.makefile(".ini", pytest="[pytest]\n")
    done = run()
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["zero-sizer: *nowhere.json: cannot be read*"])


def test_the_fixture_gives_the_answer(pytester, run):
    pytester.makepyfile(
        HEAD
        + """
def test_answer(job_fits):
    found = job_fits(CONFIG, **JOB)
    assert found.devices["gpu"].peak_bytes < 3 * 2**30

def test_sweep(job_fits):
    assert len(job_fits(CONFIG, **{**JOB, "model": ["gpt2", "gpt2-medium"]})) == 2

def test_one_of_a_sweep(job_fits):
    job_fits(CONFIG, **{**JOB, "model": ["gpt2", "llama-2-7b"]})
"""
    )
    done = run()
    done.assert_outcomes(passed=2, failed=1)


@pytest.mark.slow
def test_what_nobody_can_tell_fails_unless_it_may_pass(pytester, run):
    pytester.makepyfile(
        HEAD
        + """
@pytest.mark.fits(CONFIG, model="gpt2")  # on which GPU?
def test_open():
    pass

@pytest.mark.fits(CONFIG, model="gpt2", allow_uncertain=True)
def test_allowed():
    pass

@pytest.mark.fits({**CONFIG, "bf16": {"enable": 1}}, model="gpt2", allow_uncertain=True)
def test_not_valid():
    pass
"""
    )
    done = run()
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["*COULD NOT TELL*"])
    run("--zero-sizer-allow-uncertain").assert_outcomes(passed=2, failed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("CONFIG, modle='gpt2'", "*did you mean model?*"),
        ("CONFIG, 'gpt2'", "*takes one config*"),
        ("model='gpt2'", "*no config*"),
        ("5, model='gpt2'", "*a config is a path or a mapping, not int*"),
        ("CONFIG", "*no model*"),
    ],
)
def test_a_mistake_is_told_in_a_line(arguments, message, pytester, run):
    pytester.makepyfile(HEAD + f"@pytest.mark.fits({arguments})\ndef test_it():\n    pass\n")
    done = run()
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([message])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_a_bare_marker_of_this_name_is_somebody_else_s(pytester, run):
    pytester.makepyfile("import pytest\n@pytest.mark.fits\ndef test_image():\n    pass\n")
    run().assert_outcomes(passed=1)


@pytest.mark.slow
def test_job_files_become_tests(pytester, run):
    job_file(pytester)
    job_file(pytester, "large.yaml", **TOO_LARGE)
    job_file(pytester, "typo.yaml", modle="gpt2")
    job_file(pytester, "not_named.yaml", **TOO_LARGE)
    pytester.makepyfile("def test_other():\n    pass\n")
    named = ("--zero-sizer", "job.yaml", "--zero-sizer=large.yaml", "--zero-sizer", "typo.yaml")
    done = run(*named)
    done.assert_outcomes(passed=2, failed=2)
    done.stdout.fnmatch_lines(["*DOES NOT FIT*", "*did you mean model?*", "PASSED job.yaml::fits"])
    alone = run("--zero-sizer", "large.yaml", "large.yaml")
    alone.assert_outcomes(failed=1)
    assert alone.ret == 1


def test_a_job_file_outside_the_project(pytester, run, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    path = other / "job.yaml"
    path.write_text(job_file(pytester).read_text())
    run("--zero-sizer", str(path)).assert_outcomes(passed=1)


def test_a_missing_job_file_is_bad_usage(pytester, run):
    assert run("--zero-sizer", "missing.yaml").ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.slow
def test_workers_run_each_job_once(pytester, run):
    pytest.importorskip("xdist")
    job_file(pytester)
    done = run("-p", "xdist", "-n", "2", "--zero-sizer", "job.yaml")
    done.assert_outcomes(passed=1)


def test_it_is_loaded_by_its_entry_point_and_light(tmp_path):
    """An installed package: a real pytest finds the plugin, and imports nothing else of it."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    points = setup["options.entry_points"]["pytest11"].strip()
    about = tmp_path / "site" / "zero_sizer-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: zero-sizer\nVersion: 0\n")
    (about / "entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    (tmp_path / "test_light.py").write_text(
        "import sys\n"
        "def test_light(request):\n"
        "    assert request.config.pluginmanager.has_plugin('zero_sizer')\n"
        "    ours = {name for name in sys.modules if name.startswith('zero_sizer')}\n"
        "    assert ours == {'zero_sizer', 'zero_sizer.version', 'zero_sizer.pytest_plugin'}\n"
    )
    paths = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    env = {**os.environ, "PYTHONPATH": paths}
    env.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
