"""Ranges of tokens in which a family's fits hold, at a model's own window and number of images."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zero_sizer.models.feeds.records import Feed

_Fit = Mapping[str, Any]


def own(
    fits: Iterable[_Fit], document: Mapping[str, Any], window: int | None, feed: Feed | None
) -> Iterator[_Fit]:
    """The fits of a setup that a model has.

    Args:
        fits: as the family's profile has them.
        document: that profile.
        window: tokens of the model's attention; None where it has no window.
        feed: what a sample brings; None: tokens alone.
    """
    for fit in fits:
        if feed is not None and _shows(fit, feed):
            yield _from(fit, document["fewest"], feed)
        elif feed is None:
            yield fit if window is None else moved(fit, document["window"], window)


def _shows(fit: _Fit, feed: Feed) -> bool:
    """Whether a fit is of so many images."""
    fewest, most = fit.get("images") or (0, None)
    return fewest <= feed.measures.get("images", 1) <= (most or 2**62)


def _from(fit: _Fit, traced: int, feed: Feed) -> _Fit:
    """A fit whose range of tokens begins behind those of the images."""
    low, high = fit["sequence"]
    return {**fit, "sequence": [max(feed.fewest, 1) if low == traced else low, high]}


def moved(fit: _Fit, traced: int, window: int) -> _Fit:
    """A fit whose range of tokens ends or begins at the window, which is another here."""
    low, high = fit["sequence"]
    begin = window if low == traced else low
    return {**fit, "sequence": [begin, window - 1 if high == traced - 1 else high]}
