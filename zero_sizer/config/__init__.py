"""Reading DeepSpeed configs."""
