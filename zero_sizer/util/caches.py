"""Caches of large results, which one question fills and a loop over questions shall not pile up."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])

MOST = 12
"""Results that a cache takes along to the next question, which may be about a job much alike."""

_large: list[Any] = []


def cached_large(maxsize: int) -> Callable[[_Function], _Function]:
    """Keeps large results by their arguments: as many as a search comes back to."""

    def keep(function: _Function) -> _Function:
        kept = lru_cache(maxsize)(function)
        _large.append(kept)
        return cast("_Function", kept)

    return keep


def release() -> None:
    """Empty the caches that hold more than the next question may come back to."""
    for kept in _large:
        if kept.cache_info().currsize > MOST:
            kept.cache_clear()
