"""How gradients fill reduction buckets, in the order backward produces them."""

from functools import lru_cache

from zero_sizer.units import round_up


@lru_cache(maxsize=4096)
def largest_bucket(numels: tuple[int, ...], limit: int, ranks: int) -> int:
    """Elements of the fullest stage-3 bucket, each tensor padded to the ranks.

    A bucket is reduced when the next gradient would not fit (stage3.py:1584); a tensor larger than
    the limit is reduced alone, and one that needs no padding is reduced in place, without a copy
    (coalesced_collectives.py:113).
    """
    largest, elements, padded, count = 0, 0, 0, 0
    for numel in (*reversed(numels), None):
        if numel is None or (elements + numel > limit and elements):
            needs_copy = count > 1 or padded != elements
            largest = max(largest, padded if needs_copy else 0)
            elements = padded = count = 0
        if numel is not None:
            elements += numel
            padded += round_up(numel, ranks)
            count += 1
    return largest
