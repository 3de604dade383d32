"""Readers of CONFIG: ours, and files of other tools, one tool a file."""
