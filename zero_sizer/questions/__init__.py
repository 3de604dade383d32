"""Questions that the command line and Python ask alike: from words to the finished answer."""
