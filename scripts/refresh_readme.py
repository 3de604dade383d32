"""Put the real output of scripts/demo into README.md, and a picture of another beside it.

Run it after a change of what `check` prints:

    python scripts/refresh_readme.py
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import comparison  # noqa: E402
import picture  # noqa: E402

PICTURE = ROOT / "docs" / "answer.svg"
README = ROOT / "README.md"


def main() -> None:
    """Rewrite the blocks between the markers."""
    parser = argparse.ArgumentParser(description="Refresh the outputs shown in README.md.")
    parser.parse_args()
    text = put(README.read_text(), "demo", demo_output())
    README.write_text(text.replace(f"\n{compared(text)}\n", f"\n{comparison.table()}\n"))
    PICTURE.write_text(picture_text())


def picture_text() -> str:
    """The picture at the top of README.md."""
    arguments = shlex.split(picture.COMMAND)[1:]
    return picture.svg_of(picture.COMMAND, run(*arguments, columns=picture.COLUMNS))


def compared(text: str) -> str:
    """The table beside other tools, as ``text`` has it."""
    _, start, rest = text.partition("<!-- compared:start -->\n")
    body, end, _ = rest.partition("\n<!-- compared:end -->")
    if not (start and end):
        raise ValueError("README.md has no markers compared:start and compared:end")
    return body


def demo_command() -> str:
    """The command that scripts/demo runs: its last line."""
    return (ROOT / "scripts" / "demo").read_text().strip().splitlines()[-1]


def demo_output() -> str:
    """What scripts/demo prints once it is set up: the command and its answer."""
    command = demo_command()
    return f"$ {command}\n{run(*shlex.split(command)[1:])}".rstrip()


def run(*args: str, columns: int = 120) -> str:
    """Output of ``zero-sizer ARGS`` from the repository's root, in plain text.

    Raises:
        RuntimeError: the command failed, or complained.
    """
    env = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    command = (sys.executable, "-m", "zero_sizer", *args)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or done.stderr:
        raise RuntimeError(f"exit {done.returncode}: {shlex.join(command)}\n{done.stderr}")
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def block(text: str, name: str) -> str:
    """The text between the markers of ``name``, without its code fence."""
    return _find(text, name).group("body")


def put(text: str, name: str, body: str) -> str:
    """``text`` with ``body`` between the markers of ``name``."""
    start, end = _find(text, name).span("body")
    return text[:start] + body + text[end:]


def _find(text: str, name: str) -> re.Match[str]:
    pattern = rf"<!-- {name}:start -->\n```console\n(?P<body>.*?)\n```\n<!-- {name}:end -->"
    match = re.search(pattern, text, re.DOTALL)
    if match is None:
        raise ValueError(f"README.md has no block between the markers {name}:start and {name}:end")
    return match


if __name__ == "__main__":
    main()
