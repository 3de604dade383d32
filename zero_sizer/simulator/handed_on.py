"""Answers of torch in one simulated run, for the next one of a batch.

Runs of a batch are forks, one after the other, often of one model: each would ask torch again for
what the one before was told. Operators of torch's own library alone are handed on; another's may
be something else in the next run.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ANSWERS: dict[Any, dict[Any, Any]] = {}
"""By operator: what it returned, by the metadata of its arguments (``remembered.py``)."""


def counted() -> dict[Any, int]:
    """How many answers there are of each operator."""
    return {func: len(results) for func, results in ANSWERS.items()}


def write(path: Path, before: Mapping[Any, int]) -> None:
    """Writes the answers that came after those that ``before`` counts."""
    learned = [
        (func._overloadpacket.__name__, func._overloadname, list(results.items())[first:])
        for func, results in ANSWERS.items()
        if func.namespace == "aten" and len(results) > (first := before.get(func, 0))
    ]
    path.write_bytes(pickle.dumps(learned))


def read(path: Path) -> None:
    """Adds the answers that a fork of this process wrote."""
    for packet, overload, answers in pickle.loads(path.read_bytes()):  # noqa: S301 (our own)
        func = getattr(getattr(torch.ops.aten, packet), overload)
        ANSWERS.setdefault(func, {}).update(answers)
