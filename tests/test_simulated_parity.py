"""The ledger beside the simulated engine, on jobs drawn at random as the parity benchmark draws."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(590)]

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import parity  # noqa: E402 (the benchmark's own jobs and comparison)

from zero_sizer.errors import ZeroSizerError  # noqa: E402
from zero_sizer.ledger import evaluate  # noqa: E402
from zero_sizer.moments import Moment  # noqa: E402
from zero_sizer.witnesses.simulated import run_requests  # noqa: E402
from zero_sizer.witnesses.simulated.parent import request_of  # noqa: E402

JOBS = 16
STATES = ("parameters", "master_weights", "optimizer_states")


@pytest.fixture(scope="module")
def runs():
    """(job, recording) of what the engine takes."""
    rng = random.Random(20)
    cases = [parity.draw(rng) for _ in range(JOBS)]
    recordings = run_requests([request_of(case.job, rank=0, steps=2) for case in cases])
    taken = [
        (case, recording)
        for case, recording in zip(cases, recordings, strict=True)
        if not isinstance(recording, ZeroSizerError)
    ]
    assert len(taken) >= JOBS // 2
    return taken


def test_peaks_of_init_and_step_are_within_one_percent(runs):
    wrong = [
        f"{case.name}: {device} {phase} predicted {predicted}, simulated {simulated}"
        for case, recording in runs
        for device, phase, predicted, simulated in parity.compare(case, recording)
        if device == "gpu"
        and phase in ("init", "step")
        and simulated > 2**27
        and abs(predicted / simulated - 1) > 0.01
    ]
    assert not wrong, "\n".join(wrong)


def test_peaks_of_forward_and_backward_are_within_three_percent(runs):
    wrong = [
        f"{case.name}: {device} {phase} predicted {predicted}, simulated {simulated}"
        for case, recording in runs
        for device, phase, predicted, simulated in parity.compare(case, recording)
        if device == "gpu"
        and phase in ("forward", "backward")
        and abs(predicted / simulated - 1) > 0.03
    ]
    assert not wrong, "\n".join(wrong)


def test_model_states_after_init_and_step_equal_to_the_byte(runs):
    wrong = []
    for case, recording in runs:
        plan = parity.plan_of(case)
        allocations = evaluate(parity.ENTRIES, plan, explain=False)
        for phase, moment in (("init", Moment.READY), ("step", Moment.DONE)):
            predicted, simulated = Counter(), Counter()
            for a in allocations:
                if moment in a.moments and a.category.value in STATES:
                    predicted[a.category.value, a.device.value] += a.num_bytes
            for buffer in recording.ranks[0].last(phase).live:
                if buffer.category in STATES:
                    simulated[buffer.category, buffer.device] += buffer.num_bytes
            if predicted != simulated:
                wrong.append(f"{case.name}, {phase}: {dict(predicted)} but {dict(simulated)}")
    assert not wrong, "\n".join(wrong)
