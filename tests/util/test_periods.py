"""Stretches that come again, against what the row says."""

from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.util.periods import periods


@given(st.lists(st.integers(0, 3), max_size=40))
def test_every_stretch_is_repeated_and_none_meets_another(row):
    end = 0
    for start, period, times in periods(row):
        assert start >= end
        assert times >= 4
        end = start + period * times
        assert row[start:end] == row[start : start + period] * times


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(4, 9))
def test_what_is_repeated_is_found(block, times):
    found = list(periods(["before", *block * times, "after"]))
    covered = sum(period * count for _, period, count in found)
    assert covered >= len(block) * times * 3 // 4
