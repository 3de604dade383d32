"""Replacing attributes for a while."""

from typing import Any

_MISSING = object()


class Patches:
    """Attributes replaced for a while; ``undo`` puts back what stood there."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replaces ``owner.name``, remembering how ``owner`` itself defined it, if it did."""
        self._undo.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Restores everything, last change first."""
        while self._undo:
            owner, name, before = self._undo.pop()
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
