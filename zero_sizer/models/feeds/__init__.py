"""Inputs of one sample: the tensors that a model's forward is called with.

``feed_of`` derives them from the model's config.json and from what the user says of a sample.
"""

from zero_sizer.models.feeds.derive import feed_of
from zero_sizer.models.feeds.records import Feed, Images, Input, Said

__all__ = ["Feed", "Images", "Input", "Said", "feed_of"]
