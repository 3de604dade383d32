"""What a collection looks at, while old objects are kept out of it."""

import gc

import pytest

from zero_sizer.util import gc_paused
from zero_sizer.util.gc_paused import keep_old_objects, old_objects_kept


@pytest.mark.parametrize("froze_before", [False, True])
def test_old_objects_are_kept_out_and_what_the_caller_froze_stays_so(froze_before, monkeypatch):
    monkeypatch.setattr(gc_paused, "_is_frozen", False)  # as it is but for the suite's own
    was_frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    if froze_before:
        gc.freeze()
    try:
        with old_objects_kept():
            assert gc.get_freeze_count() > 1000
        assert (gc.get_freeze_count() > 0) is froze_before
    finally:
        gc.unfreeze()
        if was_frozen:
            gc.freeze()


def test_what_is_kept_for_good_is_kept_without_being_counted(monkeypatch):
    monkeypatch.setattr(gc_paused, "_is_frozen", False)
    keep_old_objects()

    def count():
        raise AssertionError("walks through every object")

    monkeypatch.setattr(gc, "get_freeze_count", count)
    with old_objects_kept():
        pass
    monkeypatch.undo()
    assert gc.get_freeze_count() > 1000
