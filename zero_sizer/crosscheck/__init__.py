"""Compares the prediction with DeepSpeed's helpers, rules of thumb and recorded runs."""
