"""The command line."""

import gc
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the documented contract (0, 1, 2, 3)."""
    try:
        # Here, not above: Ctrl-C finds what is quiet about it already while modules are loaded.
        from zero_sizer.cli import command

        return command.main(arguments)
    except KeyboardInterrupt:
        return 130


def run() -> None:
    """Run the command of this process, and end the process with its exit code.

    What is built lives until the end: nothing is collected while modules are loaded, and nothing is
    taken apart afterwards, which together is a fifth of a cold ``check``. Where a witness ran,
    PyTorch's own clean-up runs as usual.
    """
    gc.disable()
    code = main()
    if "torch" in sys.modules:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 (contextlib is not imported yet)
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the reader is gone, or the stream
    os._exit(code)
