"""Files are read within bounds and written whole."""

import os
import stat

import pytest

from zero_sizer.errors import InputError
from zero_sizer.util import files


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 2048)
    assert files.read_bytes(path, 2048, "a thing") == b"x" * 2048
    with pytest.raises(InputError, match="larger than 1 KiB: not a thing"):
        files.read_bytes(path, 1024, "a thing")
    assert files.read_part(path, 2040, 100, "a thing") == (b"x" * 8, 2048)


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/stdin", "/proc/self/mem/x", "a\0b", "x" * 5000]
)
def test_what_is_no_file_is_one_line(name):
    with pytest.raises(InputError) as caught:
        files.read_bytes(name, 100, "a thing")
    assert "\n" not in caught.value.message
    assert files.existing("x" * 5000) is None


def test_json_has_no_nan_but_where_it_is_asked_for(tmp_path):
    path = tmp_path / "f"
    path.write_text("[NaN, 1]")
    with pytest.raises(InputError, match="NaN is no JSON"):
        files.read_json(path, 100, "a thing")
    assert files.read_json(path, 100, "a thing", constants=True)[1] == 1
    for text, says in (("[" * 90_000, "nested"), ("9" * 5000, "parsed"), ("\xff", "JSON|text")):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(InputError, match=says):
            files.read_json(path, 10**6, "a thing")


def test_a_file_is_there_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "f"
    path.write_text("before")

    def parts():
        yield b"half"
        assert path.read_text() == "before"
        assert [entry.name for entry in tmp_path.iterdir()] == ["f"]  # it has no name yet
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        files.write(path, parts())
    assert path.read_text() == "before"
    files.write_text(path, "after \ud800")
    assert path.read_text() == "after \\ud800"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    monkeypatch.setattr(files, "_NO_NAME", 0)  # a system without nameless files
    files.write_text(path, "again")
    assert path.read_text() == "again"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_what_a_link_names_is_written_and_a_device_written_to(tmp_path):
    target, link = tmp_path / "t", tmp_path / "l"
    target.write_text("a")
    link.symlink_to(target)
    files.write_text(link, "b")
    assert (target.read_text(), link.is_symlink()) == ("b", True)
    files.write_text("/dev/null", "b")
    assert not os.path.isfile("/dev/null")


def test_what_cannot_be_written_is_said_before(tmp_path):
    for name, says in ((str(tmp_path), "is a folder"), (str(tmp_path / "n" / "f"), "no folder"),
                       ("x" * 5000, "be written"), ("a\0b", "be written")):  # fmt: skip
        with pytest.raises(InputError, match=says) as caught:
            files.require_writable(name, "--output")
        assert caught.value.where == "--output"
    files.require_writable(str(tmp_path / "f"), "--output")
    files.require_writable(None, "--output")
