r"""The one place where text leaves: nothing that a file holds can steer a terminal.

Control characters, marks that turn the direction of writing, and halves of characters are written
as JSON writes them, ``\\u001b``: an escape is then the same in a text and in a JSON document. A
reader that has gone away changes nothing: the rest is not written, and the answer's exit code
stays.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from zero_sizer.cli import colour

_MOST = 4_000  # characters of a line for a person
# Beside what steers: separators that are new lines for some, marks that nobody sees, tags.
_UNSEEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def escaped(text: str, encoding: str = "utf-8") -> str:
    """``text`` without what a terminal would obey, in characters that ``encoding`` has."""
    if text.isascii() and text.isprintable():
        return text
    text = _UNSEEN.sub(_escape, text)
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = "".join(char if char.isascii() else _escape(char) for char in text)
    return text


def _escape(found: "re.Match[str] | str") -> str:
    char = found if isinstance(found, str) else found[0]
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


class Outlet:
    """A standard stream that escapes what is written, and does not mind a reader that is gone.

    Args:
        stream: where it goes.
        may_be_lost: a device that takes nothing is like a reader that is gone.

    Attributes:
        is_whole: lines are never cut (a JSON document).
        has_failed: what was written could not be stored.
    """

    def __init__(self, stream: Any, *, may_be_lost: bool = False) -> None:
        self._lost = OSError if may_be_lost else BrokenPipeError
        self._stream = stream
        self._is_gone = stream is None
        self._column = 0
        self._is_coloured = colour.is_taken(stream)
        self.is_whole = False
        self.has_failed = False
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    @property
    def raw(self) -> Any:
        """Stream behind this one, for a progress bar."""
        return self._stream

    def write(self, text: str) -> int:
        """Write ``text``, escaped; of a line for a person the first ``_MOST`` characters."""
        size = len(text)
        if self.is_whole:
            self._try("write", escaped(text, self.encoding))
            return size
        lines = []
        for line in self._lines(text):
            starts = self._column == 0
            line = escaped(self._cut(line), self.encoding)
            lines.append(colour.painted(line) if starts and self._is_coloured else line)
        self._try("write", "\n".join(lines))
        return size

    def _lines(self, text: str) -> Iterator[str]:
        first, *rest = text.split("\n")
        yield first
        for line in rest:
            self._column = 0
            yield line

    def _cut(self, line: str) -> str:
        before, self._column = self._column, self._column + len(line)
        if self._column <= _MOST:
            return line
        return line[: max(0, _MOST - before)] + ("..." if before <= _MOST else "")

    def flush(self) -> None:
        """Write what is buffered."""
        self._try("flush")

    def isatty(self) -> bool:
        """True if the stream is a terminal."""
        return not self._is_gone and bool(self._stream.isatty())

    def _try(self, method: str, *arguments: str) -> None:
        if self._is_gone:
            return
        try:
            getattr(self._stream, method)(*arguments)
        except self._lost:
            self._is_gone = True
            self._forget()
        except OSError:
            self.has_failed = True
            raise

    def _forget(self) -> None:
        """What Python still holds goes nowhere, so that its own last flush succeeds."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded() -> Iterator[tuple[Outlet, Outlet]]:
    """Inside, standard output and error are outlets.

    Raises:
        OSError: what was written cannot be stored (a full disk).
    """
    before = sys.stdout, sys.stderr
    outlets = Outlet(sys.stdout), Outlet(sys.stderr, may_be_lost=True)
    sys.stdout, sys.stderr = outlets
    try:
        yield outlets
        for outlet in outlets:
            outlet.flush()
    finally:
        sys.stdout, sys.stderr = before
