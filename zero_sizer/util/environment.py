"""Environment variables, set for a while."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[Mapping[str, str | None]]:
    """Sets environment variables and puts the old ones back; yields those, None where unset."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield before
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
