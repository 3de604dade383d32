"""The light core on every Python it is meant for, where there is one; no torch, no venv."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "deepspeed_configs" / "demo.json"
NEEDED = ("yaml", "hjson", "rich", "markdown_it", "mdurl", "pygments")
MINORS = (11, 12, 13, 14)
CHECK = [str(DEMO), "--model", "qwen2.5-7b", "--gpus-per-node", "8", "--gpu", "h100-80gb"]
COMMANDS = [
    ["check", *CHECK, "--adapter", r"r=8,targets=q_proj+v_proj", "--timeline"],
    ["check", *CHECK, "--format", "json"],
    ["choose", "--model", "gpt2", "--gpu", "h100-80gb"],
    ["models"],
    ["gpus"],
]


def interpreter(minor: int) -> str | None:
    """A Python 3.``minor`` that starts; None where there is none."""
    homes = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions", Path("/opt")]
    named = [str(p) for home in homes for p in sorted(home.glob(f"*/bin/python3.{minor}"))]
    for path in (*named, shutil.which(f"python3.{minor}")):
        if path and _answers(path, minor):
            return path
    return None


def _answers(path: str, minor: int) -> bool:
    """A shim of a version manager stands there too where the version does not."""
    program = "import sys; print(sys.version_info[1])"
    done = subprocess.run([path, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() == str(minor)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with what the light core needs and nothing else; all of it is plain Python."""
    folder = tmp_path_factory.mktemp("pythons") / "packages"
    folder.mkdir()
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent)
    return folder


@pytest.fixture(scope="module")
def here(packages):
    """What this Python says to each command."""
    return [_said(sys.executable, packages, arguments) for arguments in COMMANDS]


def _said(python: str, packages: Path, arguments: list[str]) -> tuple[int, str, str]:
    environment = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{packages}",
        "HOME": str(packages.parent),
        "PYTHONPYCACHEPREFIX": str(packages.parent / "bytecode"),  # compiled once each Python
    }
    command = [python, "-S", "-W", "error", "-m", "zero_sizer", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("minor", MINORS)
def test_the_light_core_says_the_same_on_every_python(minor, packages, here, tmp_path):
    other = interpreter(minor)
    if other is None:
        pytest.skip(f"no Python 3.{minor} here")
    for arguments, (own_code, own, _) in zip(COMMANDS, here, strict=True):
        code, out, err = _said(other, packages, arguments)
        assert err == ""
        assert code == own_code
        assert out == own
    (tmp_path / "a.json").write_text(json.dumps({"target_modules": "(.*)*(.*)*(.*)*x"}))
    adapted = ["check", *CHECK, "--adapter", str(tmp_path / "a.json")]
    code, out, err = _said(other, packages, adapted)
    assert (code, out) == (2, "")
    assert "matches no module" in err
