"""Launcher lines: what a user types to start a job, read and never started.

``read(["deepspeed", "--num_gpus", "8", "train.py", "--lr", "1e-4"])`` says which script runs, on
how many nodes and ranks, with which variables.
"""

from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.reader import read

__all__ = ["Launch", "read"]
