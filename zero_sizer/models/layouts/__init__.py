"""Tensor names and shapes of model families, from the fields of a config."""
