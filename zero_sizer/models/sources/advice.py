"""Lines that packages print about the machine they are imported on, which computes nothing here."""

import logging

LOGGER = "bitsandbytes.backends.cpu.ops"
KERNEL = "Failed to load CPU gemm_4bit_forward"


def without_advice() -> None:
    """Drops bitsandbytes' line about a kernel for CPUs; whatever else it logs is still logged.

    bitsandbytes 0.50.2 backends/cpu/ops.py:252, where it is imported on a CPU with AVX-512 BF16.
    """
    logging.getLogger(LOGGER).addFilter(_is_news)  # added once, however often


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(KERNEL)
