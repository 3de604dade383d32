"""State tensors and temporaries of every optimizer, and which one a config selects."""
