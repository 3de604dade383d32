"""The ledger against the simulated engine, over the jobs of ``benchmarks/parity.py``.

The benchmark draws hundreds and commits the errors; here a few are drawn each time. Model states
agree to the byte, the peaks of init and step within 1 %, those of forward and backward within 3 %.
"""

import importlib.util
import sys

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_house import ROOT

from zero_sizer.errors import ZeroSizerError
from zero_sizer.features import ENTRIES
from zero_sizer.ledger import evaluate
from zero_sizer.moments import Moment

pytestmark = pytest.mark.slow

STATES = ("parameters", "master_weights", "optimizer_states", "gradients")
# A tied head that zero.Init casts from fp32: the ledger has its partition beside both copies, the
# engine only one after the other (gpt2 on 4 ranks: 3.3 % of init; named in docs/limits.md).
CAST_HEAD = 0.035
TOLERANCE = {"init": 0.01, "step": 0.01, "forward": 0.03, "backward": 0.03}


def benchmark():
    """benchmarks/parity.py as a module."""
    path = ROOT / "benchmarks" / "parity.py"
    spec = importlib.util.spec_from_file_location("parity_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PARITY = benchmark()


@st.composite
def jobs(draw):
    """One of the benchmark's jobs: model x stage x offload x precision x optimizer x ranks ..."""
    return PARITY.draw(lambda options: draw(st.sampled_from(options)))


def casts_head(case):
    plan = PARITY.plan_of(case)
    tied = plan.model.arch.tied_embeddings and plan.zero_init
    return tied and plan.built_dtype is not plan.model_dtype


def predicted_states(case, moment):
    allocations = evaluate(ENTRIES, PARITY.plan_of(case), explain=False)
    return {
        (device, category): sum(
            a.num_bytes
            for a in allocations
            if moment in a.moments and a.device.value == device and a.category.value == category
        )
        for device in ("gpu", "host")
        for category in STATES
    }


def simulated_states(record):
    return {(d, c): record.num_bytes(c, d) for d in ("gpu", "host") for c in STATES}


@given(drawn=st.lists(jobs(), min_size=7, max_size=7, unique_by=lambda case: case.name))
@settings(
    max_examples=1,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_job_is_predicted(drawn):
    taken = 0
    for case, recording in zip(drawn, PARITY.run_batch(drawn), strict=True):
        if isinstance(recording, ZeroSizerError):
            continue  # DeepSpeed or the model refuses it
        taken += 1
        rank = recording.ranks[0]
        for name, moment in (("init", Moment.READY), ("step", Moment.DONE)):
            found = simulated_states(rank.last(name))
            assert found == predicted_states(case, moment), (case.name, name)
        for device, phase, predicted, simulated in PARITY.compare(case, recording):
            if simulated > 2**20:
                error = abs(predicted / simulated - 1)
                known = CAST_HEAD if phase == "init" and casts_head(case) else 0
                allowed = max(TOLERANCE[phase], known)
                assert error <= allowed, (case.name, device, phase, predicted, simulated)
    assert taken >= len(drawn) // 2
