"""The command line as a page in a browser calls it: words and files in, what is printed out."""

import io
import json
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from zero_sizer.cli import main


def ask(question: str) -> str:
    """Answers one question.

    Args:
        question: JSON with ``words`` of the command line and ``files``, name -> text, which stand
            in a folder of their own while it runs.

    Returns:
        JSON with the exit ``code`` and what went to standard output and error, ``out``, ``err``.
    """
    asked = json.loads(question)
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["zero-sizer", *asked["words"]]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for name, text in asked["files"].items():
            path = Path(*(part for part in name.split("/") if part.strip(".")))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        with redirect_stdout(out), redirect_stderr(err):
            code = _code(asked["words"])
    return json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()})


def _code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as left:  # the words themselves are wrong, or ask for help
        return left.code if isinstance(left.code, int) else 2
