"""Model shapes from every source; ``load`` is the way in."""

from zero_sizer.models.sources.bundled import bundled_names
from zero_sizer.models.sources.reference import ModelRow, describe_all, load

__all__ = ["ModelRow", "bundled_names", "describe_all", "load"]
