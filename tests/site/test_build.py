"""Building the site: what it is made of, where Pyodide comes from, and what is refused."""

import hashlib
import io
import json
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import zero_sizer
from zero_sizer import cli
from zero_sizer.cli import browser
from zero_sizer.job.fields import OPTIONS
from zero_sizer.site import build, engine, form, pyodide

CONFIG = json.dumps({"bf16": {"enabled": True}, "train_micro_batch_size_per_gpu": 1})
ASKED = [
    "--model",
    "llama-3.2-1b",
    "--gpu",
    "a100-40gb",
    "--gpus-per-node",
    "2",
    "--seq-len",
    "1024",
]


@pytest.fixture
def package(tmp_path):
    """A folder like that of the npm package."""
    folder = tmp_path / "node_modules" / "pyodide"
    folder.mkdir(parents=True)
    for name in pyodide.PARTS:
        (folder / name).write_text(f"content of {name}")
    (folder / "package.json").write_text(json.dumps({"version": pyodide.VERSION}))
    return folder


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts a program called npm first on PATH."""

    def made(script):
        path = tmp_path / "bin" / "npm"
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    return made


def built(folder, capsys, *words):
    code = cli.main(["page", "--output", str(folder), *words])
    return code, capsys.readouterr()


def test_a_site_is_whole_and_the_same_each_time(package, tmp_path, capsys):
    site, again = tmp_path / "site", tmp_path / "again"
    code, said = built(site, capsys, "--pyodide", str(package))
    assert code == 0, said.err
    assert f"--directory {site}" in said.out
    built(again, capsys, "--pyodide", str(package.parent.parent))  # where npm install was typed
    parts = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    for part in parts:
        assert (again / part).read_bytes() == (site / part).read_bytes()
    for name in pyodide.PARTS:
        assert (site / "pyodide" / name).read_text() == f"content of {name}"
    index = (site / "index.html").read_text()
    named = re.findall(r'(?:src|href)="([^"#]+)"', index)
    named += re.findall(r'from "\./([\w.]+)"', (site / "page.js").read_text())
    assert set(map(Path, named)) <= parts
    about = json.loads((site / build.MARK).read_text())
    packed = (site / "engine.zip").read_bytes()
    assert about["engine_sha256"] == hashlib.sha256(packed).hexdigest()


def test_the_engine_is_this_package_and_has_no_compiled_part():
    names = zipfile.ZipFile(io.BytesIO(engine.archive())).namelist()
    root = Path(zero_sizer.__file__).parent
    own = {path.relative_to(root.parent).as_posix() for path in root.rglob("*/data/*.json")}
    assert own <= set(names)
    assert {"zero_sizer/cli/browser.py", "yaml/__init__.py", "hjson/__init__.py"} <= set(names)
    assert not [name for name in names if name.endswith((".so", ".pyc"))]
    licensed = {name.split("/")[1] for name in names if name.startswith("licences/")}
    assert {"jinja2", "markupsafe", "pygal", "yaml"} <= licensed
    assert not [name for name in names if name.startswith("pygal/test")]


@pytest.mark.slow
def test_the_engine_holds_all_that_its_libraries_import(tmp_path):
    """A Python without the packages of this one, which is what a browser has, draws the page."""
    zipfile.ZipFile(io.BytesIO(engine.archive())).extractall(tmp_path / "engine")
    (tmp_path / "ds.json").write_text(CONFIG)
    code = (
        "import sys; sys.path.insert(0, 'engine'); from zero_sizer.cli import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["check", "ds.json", *ASKED, "--format", "html"]
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "<svg" in run.stdout


def test_every_value_that_can_be_stated_has_its_widget():
    widgets = [*form.first().values(), *(w for group in form.others() for w in group.widgets)]
    flags = [widget.flag for widget in widgets]
    assert len(flags) == len(set(flags))
    left_out = {option.name for option in OPTIONS if option.flag not in flags}
    assert left_out == {
        "hostfile",
        "cluster_profile",
        "rates",
        "allow_code",
    }  # files and code, which it has not


def test_what_npm_packs_is_unpacked(package, npm, tmp_path, capsys):
    npm(f'echo "$@" >{tmp_path}/words; cp -r {package} package; tar czf p.tgz package')
    code, said = built(tmp_path / "site", capsys, "--fetch")
    assert code == 0, said.err
    assert (tmp_path / "words").read_text().split() == ["pack", "--silent", "pyodide@314.0.7"]
    assert (tmp_path / "site" / "pyodide" / "pyodide.mjs").read_text() == "content of pyodide.mjs"


def test_a_npm_that_fails_is_told_of(npm, tmp_path, capsys):
    npm("echo 'npm error network' >&2; exit 1")
    code, said = built(tmp_path / "site", capsys, "--fetch")
    assert code == 2
    assert "npm error network" in said.err
    assert "--pyodide DIR" in said.err
    assert not (tmp_path / "site").exists()


def test_what_is_missing_is_one_line_with_its_remedy(package, tmp_path, capsys, monkeypatch):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("")
    (tmp_path / "file").write_text("")
    (package / "package.json").write_text('{"version": "0.27.0"}')
    monkeypatch.setenv("PATH", str(tmp_path))
    cases = {
        ("new",): "--fetch",
        ("new", "--fetch"): "install Node.js",
        ("new", "--pyodide", str(full)): "npm install pyodide@",
        ("new", "--pyodide", str(package)): "0.27.0",
        ("full", "--pyodide", str(package)): "--force",
        ("file", "--pyodide", str(package)): "is a file",
    }
    for (name, *words), told in cases.items():
        code, said = built(tmp_path / name, capsys, *words)
        assert code == 2
        assert told in said.err
        assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_an_older_site_is_written_over(package, tmp_path, capsys):
    for _ in range(2):
        assert built(tmp_path / "site", capsys, "--pyodide", str(package))[0] == 0


def test_what_a_browser_is_told_is_what_the_command_line_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ds.json").write_text(CONFIG)
    for words in (["check", "ds.json", *ASKED], ["check", "ds.json"], ["check", "--nods", "2"]):
        question = json.dumps({"words": words, "files": {"../ds.json": CONFIG}})
        told = json.loads(browser.ask(question))
        try:
            code = cli.main(words)
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        assert told == {"code": code, "out": said.out, "err": said.err}
    assert Path.cwd() == tmp_path
