"""The batch triangle, against DeepSpeed's own arithmetic and its own refusals."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.config_witness import errors, load_witness, resolved

from zero_sizer.config.batch import ACCUM, KEYS, MICRO, TRAIN
from zero_sizer.config.document import from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload

ODD = [None, 0, -1, -8, True, False, 1.5, 8.0, 0.5, "8", "x", [], [1], {}, 10**6, float("nan")]
corner = st.integers(1, 64) | st.sampled_from([2, 4, 8, 16, 32]) | st.sampled_from(ODD)
corners = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, corner))


@pytest.mark.slow
@settings(max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=corners, world=st.sampled_from([1, 2, 3, 4, 8]), sequence=st.sampled_from([None, 1, 2])
)
def test_any_triangle_closes_or_fails_as_in_deepspeed(
    monkeypatch: pytest.MonkeyPatch, batch: dict[str, Any], world: int, sequence: int | None
) -> None:
    witness = load_witness(monkeypatch)
    witness.world_size = world
    config = dict(batch) if sequence is None else {**batch, "sequence_parallel_size": sequence}
    refusal = witness.refusal(config)
    ours, findings = resolved(config, world_size=world)
    said = [finding.message for finding in errors(findings)]
    assert bool(said) == bool(refusal), (refusal, said)
    if refusal:
        assert any(message.startswith(refusal) for message in said), (refusal, said)
        return
    held = witness.parse(config)
    for key in KEYS:
        value = getattr(held, key)
        if value == int(value) and not isinstance(value, bool):
            assert ours[key] == value, key


@pytest.mark.parametrize(
    ("batch", "world", "expected"),
    [
        ({TRAIN: 8, MICRO: 2}, 1, (8, 2, 4)),
        ({TRAIN: 32, ACCUM: 2}, 8, (32, 2, 2)),
        ({MICRO: 4, ACCUM: 3}, 8, (96, 4, 3)),
        ({TRAIN: 16}, 8, (16, 2, 1)),
        ({MICRO: 3}, 8, (24, 3, 1)),
    ],
)
def test_two_corners_give_the_third(
    batch: dict[str, int], world: int, expected: tuple[int, int, int]
) -> None:
    ours, findings = resolved(batch, world_size=world)
    assert (ours[TRAIN], ours[MICRO], ours[ACCUM]) == expected
    assert not findings
    for key in KEYS:
        assert ours.origin(key).startswith("<dict>" if key in batch else "computed: "), key


def test_the_refusal_names_the_exception_and_what_would_close_it() -> None:
    _, findings = resolved({TRAIN: 256, MICRO: 1, ACCUM: 8}, world_size=8)
    (finding,) = findings
    assert finding.code == "batch-triangle"
    assert finding.message == (
        "AssertionError: train_batch_size 256 is not micro batch 1 x accumulation 8 x 8 ranks"
    )
    assert finding.remedy == "set train_batch_size to 64, or run on 32 data-parallel ranks"


def by_flags(config: dict[str, Any], **flags: int) -> tuple[tuple[Any, ...], list[tuple[str, str]]]:
    found, findings = resolve(from_mapping(config), Workload(**flags), world_size=4, model=None)
    said = [(finding.severity.value, finding.code) for finding in findings]
    return (found[TRAIN], found[MICRO], found[ACCUM]), said


def test_flags_fill_a_config_without_batch_keys_with_a_warning() -> None:
    said = [("warning", "batch-not-in-config")]
    assert by_flags({}, micro_batch=2) == ((8, 2, 1), said)
    assert by_flags({}, micro_batch=2, grad_accum=3) == ((24, 2, 3), said)


def test_no_batch_anywhere_is_deepspeeds_assertion() -> None:
    assert by_flags({}) == ((None, None, None), [("error", "batch-triangle")])
    assert by_flags({}, grad_accum=3)[1] == [("error", "batch-triangle")]


def test_flags_beside_a_train_batch_size_are_checked_like_any_triangle() -> None:
    assert by_flags({TRAIN: 32}, micro_batch=2) == ((32, 2, 4), [])
    assert by_flags({TRAIN: 30}, micro_batch=2)[1] == [("error", "batch-triangle")]


def test_auto_everywhere_takes_the_flags() -> None:
    config = {**dict.fromkeys(KEYS, "auto"), "zero_optimization": {}}
    assert by_flags(config, micro_batch=2, grad_accum=3) == ((24, 2, 3), [])
    assert by_flags(config, micro_batch=2) == ((8, 2, 1), [("note", "auto-default")])
    unresolved = [("warning", "auto-unresolved")]
    assert by_flags(config, grad_accum=3) == ((None, None, 3), unresolved)
