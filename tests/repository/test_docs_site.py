"""The documentation as a site: it is built strictly, loads nothing, and its commands work."""

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import pytest

from zero_sizer.cli.command import _split_script
from zero_sizer.cli.parser import Parser
from zero_sizer.hardware.assemble import RATES
from zero_sizer.job.fields import CLUSTER, FREEZE, WORKLOAD
from zero_sizer.job.read import read

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "scripts"))
import console  # noqa: E402

SHOWN = [
    (page.name, line)
    for page in (DOCS / "howto.md", DOCS / "tutorial.md", DOCS / "page.md")
    for line in re.findall(r"^(?:\$ )?(zero-sizer .*)$", page.read_text(), re.MULTILINE)
]


class Loads(HTMLParser):
    """Addresses that a browser asks for by itself."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        is_loaded = tag != "link" or values.get("rel") not in ("canonical", "next", "prev")
        if tag in ("script", "img", "link", "iframe", "source") and is_loaded:
            self.found += [values[key] for key in ("src", "href") if values.get(key)]


@pytest.mark.slow
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    # without network: a proxy that is not there
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [path for path in tmp_path.rglob("*.html") if path.name != "404.html"]
    assert len(pages) == len(list(DOCS.glob("*.md")))
    for page in pages:
        outside = [at for at in Loads(page.read_text()).found if re.match(r"(https?:)?//", at)]
        assert not outside, page


@pytest.mark.slow
def test_the_tutorial_shows_what_is_printed():
    """If not: python scripts/console.py docs/tutorial.md."""
    text = (DOCS / "tutorial.md").read_text()
    assert console.refreshed(text) == text
    assert "DOES NOT FIT" in text


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_a_command_on_a_page_is_understood(page, line):
    own, _ = _split_script(shlex.split(line)[1:])
    parser = Parser()
    import_module(f"zero_sizer.cli.{own[0]}").configure(parser)
    parser.parse_args(own[1:])


def test_the_page_of_the_job_yaml_has_every_key():
    text = (DOCS / "job.md").read_text()
    parts = dict(re.findall(r"^## ([\w ]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    keys = {name: re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for name, part in parts.items()}
    assert sorted(keys["cluster"]) == sorted({field.name for field in CLUSTER} | set(RATES))
    assert sorted(keys["workload"]) == sorted(field.name for field in (*WORKLOAD, FREEZE))
    for field in (*CLUSTER, *WORKLOAD):
        for choice in getattr(field.check, "choices", ()):
            assert f"`{choice}`" in text, (field.name, choice)


def test_the_example_of_the_job_yaml_is_read(tmp_path, monkeypatch):
    (example,) = re.findall(
        r'```yaml title="job.yaml"\n(.*?)```', (DOCS / "job.md").read_text(), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(example)
    Path("ds.json").write_text("{}")
    job = read("job.yaml")
    assert (job.cluster.world_size, job.workload.seq_len) == (32, 4096)
    stated = set(re.findall(r"^  (\w+):", example, re.MULTILINE))
    assert stated <= set(job.cluster.origins) | set(job.workload.origins)
