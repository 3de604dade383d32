"""Traces a model's training step under fake tensors, for ``zero_sizer.activations``."""
