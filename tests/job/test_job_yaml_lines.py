"""YAML is read with JSON's numbers, and every key knows its line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.config.document import Document
from zero_sizer.job import yaml_lines

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**99), 2**99), st.floats(-1e30, 1e30), WORDS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)


@pytest.fixture
def load(tmp_path):
    def load(text: str) -> Document:
        path = tmp_path / "file.yaml"
        path.write_bytes(text.encode())
        return yaml_lines.load(str(path))

    return load


@given(values=st.dictionaries(WORDS.filter(lambda key: key != "<<"), VALUES, max_size=4))
def test_json_is_read_as_json_reads_it(tmp_path_factory, values):
    """So a DeepSpeed config pasted under ``deepspeed:`` means what it meant in its own file."""
    path = tmp_path_factory.getbasetemp() / "json.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    read = yaml_lines.load(str(path)).values
    assert json.dumps(read, sort_keys=True) == json.dumps(values, sort_keys=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e8", 5e8),
        ("5E+8", 5e8),
        ("1e-5", 1e-5),
        ("1_000", 1000),
        (".5", 0.5),
        ("-3", -3),
        ("010", "010"),
        ("1:30", "1:30"),
        ("'5e8'", "5e8"),
        ('"8"', "8"),
        ("2026-01-01", "2026-01-01"),
        ("e8", "e8"),
        (".", "."),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("2TiB", "2TiB"),
        ("a b", "a b"),
    ],
)
def test_plain_values(load, text, value):
    read = load(f"key: {text}").values["key"]
    assert (type(read), read) == (type(value), value)


def test_numbers_beyond_numbers(load):
    read = load("a: 1e999\nb: -.inf\nc: .nan").values
    assert (read["a"], read["b"]) == (math.inf, -math.inf)
    assert math.isnan(read["c"])


def test_lines_are_those_of_the_keys(load):
    document = load("a: 1\nb:\n  c:\n    - x\n    - y: 2\n  d: {e: 3,\n      f: 4}\n")
    assert document.lines == {
        **{"a": 1, "b": 2, "b.c": 3, "b.c[0]": 4, "b.c[1]": 5, "b.c[1].y": 5},
        **{"b.d": 6, "b.d.e": 6, "b.d.f": 7},
    }


def test_a_byte_order_mark_is_not_a_key(load):
    assert load("\ufeffa: 1").values == {"a": 1}
