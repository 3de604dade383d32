"""Large objects that never change as keys of caches."""

from typing import Any


class Identity:
    """An object as a key: equal to itself alone, and alive as long as the key is.

    Args:
        of: the object; it must not change.
    """

    __slots__ = ("of",)

    def __init__(self, of: Any) -> None:
        self.of = of

    def __hash__(self) -> int:
        return id(self.of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.of is self.of
