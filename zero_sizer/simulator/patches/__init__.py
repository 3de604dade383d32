"""Replacements in torch, DeepSpeed and their helpers while they run on a simulated GPU."""
