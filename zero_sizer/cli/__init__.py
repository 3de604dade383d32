"""The command line."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the documented contract (0, 1, 2, 3)."""
    try:
        # Here, not above: Ctrl-C finds what is quiet about it already while modules are loaded.
        from zero_sizer.cli import command

        return command.main(arguments)
    except KeyboardInterrupt:
        return 130
