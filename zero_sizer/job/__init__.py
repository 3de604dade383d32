"""Reads a job: DeepSpeed config, model, cluster and workload, with the origin of every value."""
