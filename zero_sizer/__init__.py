"""Know what a DeepSpeed job needs before you launch it."""

TYPE_CHECKING = False  # as typing has it, whose import Ctrl-C could meet before anything is quiet
if TYPE_CHECKING:
    from typing import Any

    from zero_sizer.dryrun.simulated.session import simulate

__all__ = ["__version__", "simulate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> "Any":
    """``simulate``, imported when first asked for: the command line starts without it."""
    if name != "simulate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("zero_sizer.dryrun.simulated.session").simulate
