"""Forward and backward: activations and what ZeRO holds, step by step."""
