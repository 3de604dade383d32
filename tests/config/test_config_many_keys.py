"""Configs of thousands of keys: a bound that is said, and a list that ends."""

import pytest

from zero_sizer.config.document import MAX_KEYS, from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError


def test_unknown_keys_are_listed_up_to_a_number():
    document = from_mapping({f"unknown_{i}": i for i in range(1000)})
    _, findings = resolve(document, Workload(), world_size=8, model=None)
    unknown = [finding for finding in findings if finding.code == "unknown-key"]
    assert len(unknown) == 50
    assert "further ones are not listed" in unknown[-1].message


def test_many_comments_do_not_hide_an_error():
    zero = {**{f"_{i}": 1 for i in range(100)}, "staeg": 3}
    _, findings = resolve(
        from_mapping({"zero_optimization": zero}), Workload(), world_size=8, model=None
    )
    assert any(finding.key.endswith("staeg") for finding in findings)


def test_more_keys_than_any_config_has_are_refused():
    with pytest.raises(InputError, match="keys"):
        from_mapping({f"k{i}": i for i in range(MAX_KEYS + 1)})
