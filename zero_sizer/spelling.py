"""What a misspelt name may have meant."""

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that ``name`` resembles, the most alike first."""
    from difflib import get_close_matches  # only where something is wrong

    return get_close_matches(name, list(known), n=count, cutoff=cutoff)


def did_you_mean(name: str, known: Iterable[str], *, count: int = 1) -> str:
    """A question for the reader; "" where nothing is near."""
    near = nearest(name, known, count=count)
    return f"did you mean {' or '.join(near)}?" if near else ""
