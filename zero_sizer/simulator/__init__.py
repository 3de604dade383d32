"""A GPU that does not exist: fake tensors whose storages are counted."""
