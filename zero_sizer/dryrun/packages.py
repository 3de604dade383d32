"""Packages that a dry run needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from contextlib import suppress
from functools import cache

from zero_sizer.errors import WitnessError

PACKAGES = ("torch", "deepspeed", "transformers")


@cache
def versions() -> dict[str, str]:
    """Package -> its version, as recordings say it."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def installed() -> dict[str, str]:
    """Package -> its version, of those that are there: a loop need not have all of them."""
    found = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def require_packages(*, recent: bool = False) -> None:
    """Refuse at once where the engine is not installed.

    Args:
        recent: whether it must not be older than what the ranks' own code was written for.

    Raises:
        WitnessError: torch or deepspeed is missing, or too old.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise WitnessError(
            f"a dry run needs {' and '.join(missing)}, which is not installed",
            remedy="pip install 'zero-sizer[deepspeed]'",
        )
    version = importlib.metadata.version("deepspeed")
    if recent and tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST:
        raise WitnessError(
            f"a run with real ranks needs DeepSpeed {'.'.join(map(str, _OLDEST))} or newer, "
            f"not {version}",
            remedy="take --how simulated, which ran with 0.16.9, or install a newer one",
        )


_OLDEST = (0, 19)  # tested with 0.19.8; with 0.16.9 they fail somewhere inside
