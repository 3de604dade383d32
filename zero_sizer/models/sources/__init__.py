"""Readers of models: bundled, config.json, safetensors, numbers, module:factory."""
