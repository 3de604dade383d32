"""The programs that run lint: pre-commit itself, and what the GitHub Action starts."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.answers import CONFIG

ROOT = Path(__file__).parents[2]
WRONG = {**CONFIG, "zero_optimization": {"stagee": 3}}
NAMED = (
    *("ds_config.json", "conf/ds_config_zero3.json", "deepspeed.json", "zero2.json", "zero_3.json"),
    *("ds_zero2_no_offload.json", "DeepSpeed_Config.json", "configs/my_deepspeed_config.json"),
)
OTHERS = ("package.json", "config.json", "ds_config.yaml", "reads.json", "zero.txt", "seeds/a.json")


def run(*command, cwd, env=None):
    variables = {**os.environ, **(env or {})}
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )


def git(*words, cwd):
    author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = run("git", *author, *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def executable(folder):
    """``zero-sizer`` of this checkout, on its own path."""
    folder.mkdir(parents=True)
    path = folder / "zero-sizer"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m zero_sizer "$@"\n')
    path.chmod(0o755)
    return folder


def hook():
    (found,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    return found


@pytest.mark.parametrize("name", NAMED)
def test_the_hook_takes_configs(name):
    assert re.search(hook()["files"], name)


@pytest.mark.parametrize("name", OTHERS)
def test_the_hook_leaves_other_files(name):
    assert not re.search(hook()["files"], name)


@pytest.fixture
def project(tmp_path):
    """A project with the hook of a repository of its own, whose tool is this checkout's."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    git("init", "-q", cwd=hooks)
    git("add", ".", cwd=hooks)
    git("commit", "-qm", "hooks", cwd=hooks)
    here = tmp_path / "project"
    here.mkdir()
    git("init", "-q", cwd=here)
    chosen = {"id": "zero-sizer-lint", "language": "system"}  # nothing is installed in a test
    repository = {"repo": str(hooks), "rev": git("rev-parse", "HEAD", cwd=hooks).strip()}
    config = {"repos": [{**repository, "hooks": [chosen]}]}
    (here / ".pre-commit-config.yaml").write_text(json.dumps(config))
    return here


def test_pre_commit_runs_the_hook(project, tmp_path):
    pytest.importorskip("pre_commit")
    path = f"{executable(tmp_path / 'bin')}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PRE_COMMIT_HOME": str(tmp_path / "cache")}

    def hooked():
        git("add", ".", cwd=project)
        return run(sys.executable, "-m", "pre_commit", "run", cwd=project, env=env)

    (project / "ds_config.json").write_text(json.dumps(CONFIG))
    (project / "package.json").write_text(json.dumps(WRONG))
    done = hooked()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    (project / "ds_zero3.json").write_text(json.dumps(WRONG))
    done = hooked()
    assert done.returncode == 1
    assert "ds_zero3.json:1: error: zero_optimization.stagee" in done.stdout
    assert "package.json" not in done.stdout


@pytest.fixture
def act(tmp_path):
    """Runs what the action runs, in an environment that is there already."""
    executable(tmp_path / "runner" / "zero-sizer-venv" / "bin")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "good.json").write_text(json.dumps(CONFIG))
    (tmp_path / "conf" / "wrong one.json").write_text(json.dumps(WRONG))

    def started(files, **inputs):
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        (step,) = action["runs"]["steps"]
        given = {name: about.get("default", "") for name, about in action["inputs"].items()}
        given |= {"files": files, **inputs}
        env = {"RUNNER_TEMP": str(tmp_path / "runner")}
        for name, text in step["env"].items():
            (source,) = re.fullmatch(r"\$\{\{ (\S+) \}\}", text).groups()
            is_input = source.startswith("inputs.")
            env[name] = given[source.removeprefix("inputs.")] if is_input else str(ROOT)
        return run(step["shell"], "-e", "-c", step["run"], cwd=tmp_path, env=env)

    return started


def test_the_action_annotates(act):
    done = act("conf/good.json")
    assert done.returncode == 0, done.stderr
    done = act("conf/*.json")
    assert done.returncode == 1
    assert "::error file=conf/wrong one.json,line=1,title=unknown-key::" in done.stdout


def test_the_action_writes_sarif(act, tmp_path):
    done = act("**/*.json\n", format="sarif", output="out.sarif")
    assert done.returncode == 1
    found = json.loads((tmp_path / "out.sarif").read_text())
    assert found["runs"][0]["results"]


@pytest.mark.parametrize("files", ["none/*.json", " ", "$(touch no) *.none", "`touch no`.none"])
def test_the_action_runs_nothing_that_an_input_says(files, act, tmp_path):
    assert act(files).returncode == 2
    assert not (tmp_path / "no").exists()
