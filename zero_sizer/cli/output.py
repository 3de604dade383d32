"""``--output``: the answer goes to a file, whole or not at all."""

import argparse
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from zero_sizer.cli.streams import Outlet
from zero_sizer.errors import InputError
from zero_sizer.util import files


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument("-o", "--output", metavar="FILE", help="write the answer here")


def require_output(path: str | None, config: str | None) -> None:
    """Refuses, before any work, a file that cannot be written, or that is CONFIG itself.

    Raises:
        InputError: it is so.
    """
    files.require_writable(path, "--output")
    own, there = (None if name is None else files.existing(name) for name in (config, path))
    if own is not None and there is not None and own.samefile(there):
        raise InputError(
            f"{path} is a file that is read",
            remedy="name another file",
            where="--output",
        )


@contextmanager
def answer_to(path: str | None, verdict: str) -> Iterator[None]:
    """Inside, what is printed goes to the file, if one is named; after it, a line says so.

    Args:
        path: of the file.
        verdict: of the answer, in words.

    Raises:
        InputError: it cannot be written.
    """
    if path is None:
        yield
        return
    text = io.StringIO()
    outlet = Outlet(text)
    outlet.is_whole = True
    with redirect_stdout(outlet):
        yield
    files.write_text(path, text.getvalue())
    print(f"{verdict}   written to {path}")
