"""What DeepSpeed allocates, one feature a file."""
