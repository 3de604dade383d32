"""PyTorch's caching and pinned allocators, replayed without torch."""
