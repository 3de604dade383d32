"""Model shapes from every source; ``load`` is the way in."""

from zero_sizer.models.profile import bundled_names
from zero_sizer.models.reference import ModelRow, describe_all, load

__all__ = ["ModelRow", "bundled_names", "describe_all", "load"]
