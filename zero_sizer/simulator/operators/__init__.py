"""Operators as CUDA runs them: their outputs, saved tensors and workspaces."""
