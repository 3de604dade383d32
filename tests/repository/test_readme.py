"""The README shows what the commands print today."""

import re
from pathlib import Path

import pytest
import refresh_readme

ROOT = Path(__file__).parents[2]


def test_the_demo_in_the_readme_is_what_check_prints():
    shown = refresh_readme.block((ROOT / "README.md").read_text(), "demo")
    assert shown == refresh_readme.demo_output()


def test_the_demo_in_the_readme_is_the_one_the_script_runs():
    shown = refresh_readme.block((ROOT / "README.md").read_text(), "demo")
    assert shown.splitlines()[0] == "$ " + refresh_readme.demo_command()


@pytest.mark.slow
def test_the_table_beside_other_tools_is_what_they_say():
    pytest.importorskip("deepspeed")
    shown = refresh_readme.compared((ROOT / "README.md").read_text())
    assert shown == refresh_readme.comparison.table()


def test_the_picture_is_what_check_prints_and_loads_nothing():
    shown = refresh_readme.PICTURE.read_text()
    assert shown == refresh_readme.picture_text()
    assert "DOES" in shown
    assert re.findall(r"https?://[^\"]+", shown) == ["http://www.w3.org/2000/svg"]


def test_every_command_of_the_readme_exists_and_none_is_missing():
    rows = re.findall(r"^\| `zero-sizer (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    listed = re.findall(r"^    (\w+)(?: |$)", refresh_readme.run("--help"), re.MULTILINE)
    assert sorted(rows) == sorted(listed)


def test_every_file_the_readme_points_to_exists():
    for name in ("README.md", "CONTRIBUTING.md"):
        targets = re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text())
        missing = [target for target in targets if not (ROOT / target).exists()]
        assert not missing, f"{name}: {missing}"
