"""The solo dry run: one real device, real tensors, and peers that do not exist."""

from zero_sizer.witnesses.solo.parent import run

__all__ = ["run"]
