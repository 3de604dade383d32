"""The house rules a tool can check: format, lint, types, layers, sizes, words, start-up, wheel."""

import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
# where torch is imported
ENGINE_ROOMS = {"dryrun", "simulator", "tracing", "crosscheck", "integrations"}
HEAVY = {"torch", "deepspeed", "transformers", "accelerate", "peft", "numpy"}
SLOW_TO_IMPORT = {"rich", "yaml", "hjson"}

# Split so that this file does not contain what it looks for.
PRIVATE = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"(?:work|root|tmp|home)/",
            r"\.\./" + "shared",
            "pypi" + r"\.org",
            "files.pythonhosted" + r"\.org",
            "registry.npmjs" + r"\.org",
            # what a reader of this repository does not have
            r"\bDESIGN" + r"\b",
            r"\bBRIEF" + r"\b",
            "memory" + "_map",
            "anchors" + r"\.md",
        ]
    )
)


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def tool(module: str, *args: str) -> None:
    done = run(sys.executable, "-m", module, *args)
    assert done.returncode == 0, f"{module} {' '.join(args)}\n{done.stdout}{done.stderr}"


def tracked(*patterns: str) -> list[Path]:
    """Files under version control, plus new ones that are not ignored."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns)
    assert listed.returncode == 0, listed.stderr
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_code_is_formatted():
    tool("ruff", "format", "--check", "--no-cache", ".")


def test_code_has_no_lint():
    tool("ruff", "check", "--no-cache", ".")


def test_words_are_spelt():
    tool("codespell_lib", *(str(path.relative_to(ROOT)) for path in tracked()))


def test_layers_import_downwards_only():
    linter = "from importlinter.cli import lint_imports_command as main; main()"
    done = run(sys.executable, "-c", linter, "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_types_hold_under_strict_mypy():
    tool("mypy")


def test_no_python_file_is_too_long():
    lengths = {path: len(path.read_text().splitlines()) for path in tracked("*.py")}
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_LINES}
    assert not long, f"split these (at most {MAX_LINES} lines): {long}"


def test_no_file_names_a_private_path_or_host():
    hits = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        hits += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(text.splitlines(), 1)
            if PRIVATE.search(line)
        ]
    assert not hits, "\n".join(hits)


def test_scripts_are_valid_bash():
    for name in (
        "scripts/demo",
        "scripts/get_programs",
        "scripts/test",
        "scripts/venv.sh",
        ".ci/run",
    ):
        done = run("bash", "-n", name)
        assert done.returncode == 0, done.stderr


def test_constraints_pin_what_setup_asks_for():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"].split()
    asked += " ".join(setup["options.extras_require"].values()).split()
    names = {re.split(r"[<>=!~;]", requirement)[0].lower() for requirement in asked}
    assert names <= set(pins)
    assert {
        "torch": "2.13.0",
        "deepspeed": "0.19.8",
        "transformers": "5.23.0",
    }.items() <= pins.items()


def test_check_imports_nothing_heavy():
    demo = (ROOT / "scripts" / "demo").read_text().strip().splitlines()[-1]
    done = run(sys.executable, "-X", "importtime", "-m", "zero_sizer", *shlex.split(demo)[1:])
    assert done.returncode in (0, 1), done.stdout + done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "zero_sizer.cli" in imported
    assert not HEAVY & {name.partition(".")[0] for name in imported}


def test_importing_the_core_imports_nothing_heavy():
    names = (path.relative_to(ROOT).with_suffix("").parts for path in tracked("zero_sizer/*.py"))
    core = [
        ".".join(parts) for parts in names if parts[1] not in ENGINE_ROOMS and parts[-1][:2] != "__"
    ]
    core.remove("zero_sizer.models.sources.torch_module")
    code = "import importlib, sys\nfor n in sys.argv[1:]: importlib.import_module(n)\n"
    done = run(sys.executable, "-c", code + "print(*sys.modules)", *core)
    assert done.returncode == 0, done.stderr
    assert not (HEAVY | SLOW_TO_IMPORT) & set(done.stdout.split())


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_package(tmp_path):
    source = tmp_path / "source"
    for path in tracked():
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    built = run(*pip, "--wheel-dir", str(tmp_path), ".", cwd=source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("zero_sizer-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("zero_sizer/")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in tracked("zero_sizer")}
