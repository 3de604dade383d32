"""What torch, DeepSpeed and their helpers must not do on a simulated GPU."""
