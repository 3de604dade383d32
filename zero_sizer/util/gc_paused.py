"""Python's garbage collector, switched off for a while."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """Inside, nothing is collected; what the caller had is back afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_is_frozen = False  # for good, by keep_old_objects


def keep_old_objects() -> None:
    """From now on and to its end, this process and its forks collect newer objects alone."""
    global _is_frozen
    gc.freeze()
    _is_frozen = True


@contextmanager
def old_objects_kept() -> Iterator[None]:
    """Inside, a collection looks at new objects alone: after imports of torch, those are few.

    Where the caller froze objects itself, they stay so.
    """
    # gc.get_freeze_count walks through them: 0.1 s in a fork
    was_frozen = _is_frozen or gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()
