"""What packages log about a machine on which nothing is computed."""

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest

from zero_sizer.models.sources import advice


def test_bitsandbytes_line_about_a_kernel_for_cpus_is_dropped_and_no_other(caplog):
    advice.without_advice()
    advice.without_advice()
    logger = logging.getLogger(advice.LOGGER)
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no kernels")
    logger.warning("Failed to load a library: %s", "libbitsandbytes.so")
    assert [record.args for record in caplog.records] == [("libbitsandbytes.so",)]


def test_it_is_the_line_that_bitsandbytes_logs():
    spec = find_spec("bitsandbytes")
    if spec is None:
        pytest.skip("no bitsandbytes")
    path = Path(str(spec.origin)).parent / "backends" / "cpu" / "ops.py"
    assert f'"{advice.KERNEL} ' in path.read_text(encoding="utf-8")
