"""Kinds of memory: GPU, host, NVMe."""

from __future__ import annotations

from enum import Enum


class Device(Enum):
    """Where bytes live. DeepSpeed's "cpu" is ``HOST``."""

    GPU = "gpu"
    HOST = "host"
    NVME = "nvme"

    __hash__ = object.__hash__  # members are unique; Enum's own hash is slow
