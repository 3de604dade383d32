"""The resolved job: every input that a formula may read."""
