"""Logs of jobs that ran out of memory: what was short, where, and what was asked for."""
