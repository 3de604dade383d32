"""CIFAR-10's files with few rows; its import tells torchvision to take them for the real ones.

torchvision loads the dataset only if its files have the checksums that it lists.
"""

import hashlib
import pickle
from pathlib import Path

import numpy as np

ROWS = 64  # of each file


def _files() -> dict[str, bytes]:
    rows = {"data": np.zeros((ROWS, 3 * 32 * 32), dtype=np.uint8)}
    batch = pickle.dumps({**rows, "labels": [i % 10 for i in range(ROWS)]})
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    labels = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    return {**dict.fromkeys(names, batch), "batches.meta": labels}


def write(folder: Path) -> None:
    """The files under ``folder``/data, where scripts look."""
    place = folder / "data" / "cifar-10-batches-py"
    place.mkdir(parents=True)
    for name, content in _files().items():
        (place / name).write_bytes(content)


def be_taken_for_real() -> None:
    """Put these files' checksums into torchvision's lists."""
    from torchvision.datasets import CIFAR10

    sums = {name: hashlib.md5(content).hexdigest() for name, content in _files().items()}
    CIFAR10.train_list = [[name, sums[name]] for name, _ in CIFAR10.train_list]
    CIFAR10.test_list = [[name, sums[name]] for name, _ in CIFAR10.test_list]
    CIFAR10.meta = {**CIFAR10.meta, "md5": sums["batches.meta"]}
