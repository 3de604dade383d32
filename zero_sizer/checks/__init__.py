"""Rules over a config and a job."""
