"""What one sample feeds a model: the tensors that its forward is called with.

``feed_of`` derives them from the model's config.json and from what the user says of a sample.
"""

from zero_sizer.models.feeds.derive import feed_of
from zero_sizer.models.feeds.records import Feed, Images, Input, Said

__all__ = ["Feed", "Images", "Input", "Said", "feed_of"]
