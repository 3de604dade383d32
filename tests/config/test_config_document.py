"""Reading: values are hjson's, lines are where the keys stand, bad input is one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.config import reader
from zero_sizer.config.document import MAX_BYTES, from_mapping, load
from zero_sizer.errors import InputError

HJSON = """\
{
  // stage first
  "zero_optimization": {
    stage: 3   # no quotes
    "reduce_bucket_size": 5e8, /* an
    inline block */ "overlap_comm": true,
  },
  "optimizer":
  {
    "params": {"betas": [0.8,
                         0.999], "lr":
      1e-4}
  },
  'steps_per_print': 10
}
"""


def write(folder: Path, content: str | bytes) -> str:
    file = folder / "ds.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def test_hjson_values_and_the_line_of_every_key(tmp_path: Path) -> None:
    document = load(write(tmp_path, HJSON))
    assert document.values == {
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 500000000, "overlap_comm": True},
        "optimizer": {"params": {"betas": [0.8, 0.999], "lr": 1e-4}},
        "steps_per_print": 10,
    }
    assert document.lines == {
        "zero_optimization": 3,
        "zero_optimization.stage": 4,
        "zero_optimization.reduce_bucket_size": 5,
        "zero_optimization.overlap_comm": 6,
        "optimizer": 8,
        "optimizer.params": 10,
        "optimizer.params.betas": 10,
        "optimizer.params.betas[0]": 10,
        "optimizer.params.betas[1]": 11,
        "optimizer.params.lr": 11,
        "steps_per_print": 14,
    }
    assert not document.strict_json


def test_floats_below_ten_billion_become_integers_as_in_hjson(tmp_path: Path) -> None:
    values = load(write(tmp_path, '{"a": 5e8, "b": 1e10, "c": 1.0, "d": 0.5}')).values
    assert [type(value) for value in values.values()] == [int, float, int, float]


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    document = load(write(tmp_path, b'\xef\xbb\xbf{\r\n  "a": 1,\r\n  "b": 2\r\n}\r\n'))
    assert document.lines == {"a": 2, "b": 3}


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**99), 2**99)
    | st.floats(-1e30, 1e30)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=5), st.sampled_from([None, 1]))
def test_any_json_object_is_read_as_hjson_reads_it(
    value: dict[str, Any], indent: int | None
) -> None:
    text = json.dumps(value, indent=indent, allow_nan=False)
    got, lines = reader.decode(text)
    assert repr(got) == repr(dict(hjson.loads(text, object_pairs_hook=dict)))
    rows = text.splitlines()
    for key in value:
        if "." not in key:
            assert json.dumps(key) in rows[lines[key] - 1]


@given(st.text(alphabet="{}[]:,\"'\\/*#\n trufalsen019e-.", max_size=60))
def test_noise_is_read_or_refused_as_hjson_does(text: str) -> None:
    assert outcome(reader.decode, text) == outcome(_as_deepspeed, text)


def outcome(decode: Callable[[str], Any], text: str) -> str:
    try:
        value = decode(text)
    except (ValueError, IndexError, OverflowError):  # HjsonDecodeError is a ValueError
        return "refused"
    return repr(value[0] if isinstance(value, tuple) else value)


def _as_deepspeed(text: str) -> Any:
    value = hjson.loads(text, object_pairs_hook=_no_duplicates)
    _measures_something(value)  # of 1e100 and more ours refuses what DeepSpeed would read
    return value


def _measures_something(value: Any) -> None:
    if isinstance(value, int | float) and 2.0**100 <= abs(value) < float("inf"):
        raise OverflowError
    inside = value.values() if isinstance(value, dict) else value
    for item in inside if isinstance(value, dict | list) else ():
        _measures_something(item)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("Duplicate keys")
    return dict(pairs)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("", 0, "is empty"),
        (" \n\t", 0, "is empty"),
        ("[1, 2]", 0, "holds a list"),
        ("7", 0, "holds a number"),
        ('"stage 3"', 0, "holds a string"),
        ('{\n"a": 1,\n"a": 2}', 3, "holds a key twice: 'a'"),
        ('{"z": {\n"a": 1,\n\n"a": 2}}', 4, "holds a key twice: 'a'"),
        ('{\n"a": {"b": 1}\n"c" 5}', 3, "not valid JSON or HJSON"),
        ('{"a": 1', 1, "not valid JSON or HJSON"),
        ('{"a": 1}\n}', 2, "not valid JSON or HJSON"),
        ('{"a": 1} /* open', 0, "ends inside a comment"),
        ('{"a": 1e999}', 0, "too large"),
        ('{"a": [' + "9" * 400 + "]}", 0, "too large"),
        ('{"a": ' + "9" * 5000 + "}", 0, "not valid JSON or HJSON"),
        ('{"a":' * 3000 + "1" + "}" * 3000, 0, "nested too deeply"),
        ('{"a":' + "[" * 3000, 0, "nested too deeply"),
        (b'{"a":\n "\xff\xfe"}', 2, "not valid UTF-8"),
        (b"\x7fELF\x00\x01\x02\xf0\x28\x8c", 1, "not valid UTF-8"),
        (b"{}" + b"\x00" * 40, 0, "is not text"),
        ("hello world", 0, "holds a string"),
        ("{" + " " * MAX_BYTES + "}", 0, "larger than"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bad_files_are_one_line_with_the_place(
    tmp_path: Path, content: str | bytes, line: int, words: str
) -> None:
    file = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        load(file)
    assert words in caught.value.message
    assert caught.value.where == (f"{file}:{line}" if line else file)
    assert "\n" not in str(caught.value)
    assert len(caught.value.message) < 200


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none.json", "No such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "x" / "y.json", "No such file"),
        ("a\0b", "cannot be read"),
        ("/dev/zero", "a pipe or a device"),
        ("/dev/null", "a pipe or a device"),
    ):
        with pytest.raises(InputError, match=words):
            load(str(path))


def test_a_mapping_with_odd_keys_is_refused() -> None:
    with pytest.raises(InputError, match="key 3 is not a string"):
        from_mapping({"zero_optimization": {3: 1}})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="must be an object"):
        from_mapping([])  # type: ignore[arg-type]
    loop: dict[str, Any] = {}
    loop["a"] = loop
    with pytest.raises(InputError, match="too deeply"):
        from_mapping(loop)
