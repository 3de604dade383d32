"""Commands that a page of docs/ shows, run in order, and what they print put under them.

    python scripts/console.py docs/tutorial.md

Blocks of ``json title="NAME"`` are files; blocks of ``console`` begin with a ``$`` line.
"""

import os
import re
import shlex
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))
from zero_sizer.cli import main

_BLOCK = re.compile(r'```(?:json title="(?P<name>[\w.]+)"|console)\n(?P<text>.*?)```', re.DOTALL)
_COLUMNS = "100"


def refreshed(markdown: str) -> str:
    """The page with today's outputs."""
    width = mock.patch.dict(os.environ, {"COLUMNS": _COLUMNS})
    with tempfile.TemporaryDirectory() as folder, chdir(folder), width:
        return _BLOCK.sub(_again, markdown)


def _again(found: re.Match[str]) -> str:
    if found["name"]:
        Path(found["name"]).write_text(found["text"])
        return found[0]
    command = found["text"].splitlines()[0]
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        main(shlex.split(command.removeprefix("$ "))[1:])
    printed = "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
    return f"```console\n{command}\n{printed}\n```"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(refreshed(path.read_text()))
