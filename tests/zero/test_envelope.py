"""The most that any of several holds, against adding up each at every time."""

from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.zero.envelope import highest

CHANGES = st.lists(st.tuples(st.integers(0, 9), st.integers(-20, 20), st.integers(0, 4)))


@given(st.integers(1, 5), CHANGES, st.integers(0, 10))
def test_those_found_hold_as_much_as_any_up_to_a_bound(holders, changes, least):
    rows = [(time, 0, holder % holders, amount) for time, amount, holder in changes]
    found = highest(holders, rows, least)
    for time in range(10):
        held = [0] * holders
        for when, _, holder, amount in rows:
            held[holder] += amount if when <= time else 0
        if any(when == time for when, *_ in rows):
            assert max(held) <= max(held[holder] for holder in found) + least


@given(st.integers(1, 5), CHANGES, st.integers(0, 10))
def test_where_nobody_ever_holds_less_the_same_are_found(holders, changes, least):
    """A change of nothing at the end sends the general way the same question."""
    rows = [(time, 0, holder % holders, abs(amount)) for time, amount, holder in changes]
    never = (99, 0, holders, -1)
    assert highest(holders + 1, [*rows, never], least) == highest(holders + 1, rows, least)
