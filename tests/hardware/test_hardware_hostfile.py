"""Hostfiles are read as DeepSpeed's launcher reads them."""

import ast
import collections
import importlib.util
import re
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.errors import InputError
from zero_sizer.hardware import hostfile

GOOD = "# nodes\n\nworker-1 slots=8\n  worker-2   slots=4 max=9\n"


@cache
def launchers_parser():
    """``_parse_hostfile`` out of the installed DeepSpeed's source: importing it loads torch."""
    spec = importlib.util.find_spec("deepspeed")
    if spec is None or spec.origin is None:
        pytest.skip("DeepSpeed is not installed")
    source = (Path(spec.origin).parent / "launcher" / "runner.py").read_text()
    function = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "_parse_hostfile"
    )
    silent = SimpleNamespace(error=lambda message: None)
    scope = {"re": re, "collections": collections, "logger": silent}
    exec(ast.unparse(function), scope)  # noqa: S102
    return scope["_parse_hostfile"]


def read(text: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hosts"
        path.write_bytes(text.encode())
        return hostfile.read(str(path))


LINES = st.one_of(
    st.sampled_from(["", "# comment", "a slots=2", "b slots=3 # x", "a  slots=1", "c slots=0"]),
    st.sampled_from(
        ["slots=8", "d slots = 8", "e slots=-1", "f 8", " g\tslots=8 extra", "h slots="]
    ),
    st.builds("{} slots={}".format, st.sampled_from("abcdé"), st.integers(0, 1024)),
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12),
)


@given(st.lists(LINES, max_size=6).map("\n".join))
def test_the_launcher_and_we_agree_on_every_file(text):
    theirs = launchers_parser()
    try:
        expected = dict(theirs(text.split("\n")))
    except ValueError:
        expected = {}
    used = {host: slots for host, slots in expected.items() if slots}
    if max(used.values(), default=0) > 1024:
        return  # we refuse what no node holds
    try:
        assert list(read(text).items()) == list(used.items())
    except InputError:
        assert not used


def test_hosts_keep_their_order_and_their_slots():
    assert read(GOOD) == {"worker-1": 8, "worker-2": 4}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a slots=8\na slots=8", ":2", "already on line 1"),
        ("a slots=8\n\nb slots", ":3", "not a hostfile entry"),
        ("a slots=99999999999999999999", ":1", "more GPUs"),
        ("# nothing\n", "", "no hosts"),
        ("a slots=0", "", "0 slots"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text, line, words):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        hostfile.read(str(path))
    assert caught.value.where == f"{path}{line}"
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00a", "folder", "nul"])
def test_what_is_no_text_file_is_one_line(tmp_path, content):
    path = tmp_path / "hosts"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        hostfile.read("a\0b" if content == "nul" else str(path))
    assert "\n" not in str(caught.value)
