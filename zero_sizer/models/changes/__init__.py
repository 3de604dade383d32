"""Changes of a model before training: LoRA adapters and quantization."""
