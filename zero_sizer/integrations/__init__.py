"""Inside a training run: the prediction at its start, its memory phase by phase, a recording.

``transformers.MemoryCallback`` for the Trainer, ``lightning.MemoryCallback`` for Lightning,
``loop.watch`` around any other loop. None of them may break a run.
"""
