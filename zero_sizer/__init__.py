"""Know what a DeepSpeed job needs before you launch it."""

from zero_sizer.version import __version__

TYPE_CHECKING = False  # as typing has it, whose import Ctrl-C could meet before anything is quiet
if TYPE_CHECKING:
    from typing import Any

    from zero_sizer.api import JobError, check, choose, diagnose, lint, size
    from zero_sizer.api.simulation import simulate

__all__ = [
    "JobError",
    "__version__",
    "check",
    "choose",
    "diagnose",
    "lint",
    "simulate",
    "size",
]

_HOMES = {"simulate": "zero_sizer.api.simulation"}  # all else is of zero_sizer.api


def __getattr__(name: str) -> "Any":
    """A name of ``__all__``, imported when first asked for: the command line starts without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "zero_sizer.api")), name)


def __dir__() -> list[str]:
    """Names that there are, those not yet imported included."""
    return sorted({*globals(), *__all__})
