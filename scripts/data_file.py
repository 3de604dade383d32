"""What the scripts share that write one data file: its lines, and whether it is current."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def text_of(rows: Iterable[tuple[str, Any]]) -> str:
    """JSON of a mapping, a line for each key."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in rows]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(about: str | None, path: Path, render: Callable[[], str]) -> int:
    """Writes the file, or with ``--check`` returns 1 where it is not current.

    Args:
        about: what ``--help`` says.
        path: of the file.
        render: makes its text.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    text = render()
    if options.check:
        return int(path.read_text(encoding="utf-8") != text)
    path.write_text(text, encoding="utf-8")
    return 0
