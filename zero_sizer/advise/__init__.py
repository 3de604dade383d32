"""Advice: which strategy to run, on how many nodes, and what to change when a job does not fit."""
