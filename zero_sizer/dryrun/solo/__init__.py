"""The solo dry run: one real device, real tensors, and peers that do not exist."""

from zero_sizer.dryrun.solo.parent import run

__all__ = ["run"]
