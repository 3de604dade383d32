"""GPUs, nodes, clusters."""
