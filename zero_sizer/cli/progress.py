"""A progress bar for whoever waits longer than a second."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

_PATIENCE_SECONDS = 1.0


class Progress:
    """Counts ticks; shows a bar on a terminal once a second has passed."""

    def __init__(
        self, title: str, total: int | None, *, patience: float = _PATIENCE_SECONDS
    ) -> None:
        self._title = title
        self._total = total
        self._patience = patience
        self._done = 0
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def tick(self) -> None:
        """One more is done."""
        self.at(self._done + 1, self._total, self._title)

    def at(self, done: int, total: int | None, title: str) -> None:
        """``done`` of ``total`` (None while unknown) are done."""
        self._done, self._total, self._title = done, total, title
        waited = time.monotonic() - self._started
        if self._bar is None and waited >= self._patience and sys.stderr.isatty():
            self._show()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=title)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._bar = Bar(
            console=Console(file=getattr(sys.stderr, "raw", sys.stderr)), transient=True
        )
        self._task = self._bar.add_task(self._title, total=self._total)
        self._bar.start()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def ticking(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Inside, a bar for whoever waits; calling what is given counts one step of ``total``."""
    with Progress(title, total) as progress:
        yield progress.tick
