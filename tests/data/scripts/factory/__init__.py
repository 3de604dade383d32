"""A package that trains from one YAML, started as LLaMA-Factory is."""
