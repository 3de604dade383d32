"""The table of torch's optimizers against torch: what each keeps, and what a step materialises.

torch's own code runs two steps on the simulated GPU, and on the host; every implementation, every
option that changes what is held.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from zero_sizer.optimizers import torch as torch_optimizers
from zero_sizer.optimizers.table import StateType

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, sys
from zero_sizer.simulator.simulation import Rank, simulated
found = []
with simulated(Rank()) as simulation:
    import torch
    tracker = simulation.tracker
    def measure(name, device, shapes, params):
        weights = [torch.nn.Parameter(torch.zeros(shape, device=device)) for shape in shapes]
        optimizer = getattr(torch.optim, name)(weights, lr=1e-3, **params)
        for _ in range(2):
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            before = tracker.live("gpu"), tracker.live_host()
            tracker.start_phase("step")
            optimizer.step()
        counters, states = [], []
        for state in optimizer.state.values():
            for value in state.values():
                (states if value.dim() else counters).append(value)
        peak = tracker.peak("gpu") if device != "cpu" else tracker.peak_host()
        return {"states": sum(s.numel() for s in states),
                "counters": len(counters), "beside": [c.device.type != "cpu" for c in counters],
                "step": peak - before[device == "cpu"]}
    for name, on_host, shapes, params in json.loads(sys.stdin.read()):
        found.append(measure(name, "cpu" if on_host else "simgpu:0", shapes, params))
print(json.dumps(found))
"""
SHAPES = [[640, 500], [500, 640], [3000], [512, 600], [2000, 700]]  # an update and the one before
DECAY, MAXIMIZE, MOMENTUM = {"weight_decay": 0.1}, {"maximize": True}, {"momentum": 0.9}
OPTIONS = {
    "Adam": ({"amsgrad": True},),
    "AdamW": ({"amsgrad": True},),
    "NAdam": ({**DECAY, "decoupled_weight_decay": True},),
    "RAdam": ({**DECAY, "decoupled_weight_decay": True},),
    "SGD": (MOMENTUM, {**MOMENTUM, **DECAY}, {**MOMENTUM, "nesterov": True}),
    "RMSprop": (MOMENTUM, {"centered": True}, {**MOMENTUM, **DECAY, "centered": True}),
}
FUSED = ("Adam", "AdamW")
NAMES = (
    *("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "ASGD", "Adafactor"),
    *("RMSprop", "Rprop", "SGD"),
)


def jobs():
    for name in NAMES:
        # Two loops hold one tensor before it more while they maximise, which the table leaves out.
        options = [{}, *([] if name in ("Rprop", "SGD") else [MAXIMIZE])]
        options += [*([] if name == "Rprop" else [DECAY]), *OPTIONS.get(name, ())]
        for params in options:
            for how in ({}, {"foreach": True}, {"foreach": False}):
                for on_host in (False, True):
                    yield name, on_host, SHAPES, {**params, **how}
            if name in FUSED:
                yield name, False, SHAPES, {**params, "fused": True}
    yield "Adafactor", False, [[10**6]], {}  # a partition


@pytest.fixture(scope="module")
def measured():
    asked = list(jobs())
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return list(zip(asked, json.loads(done.stdout.splitlines()[-1]), strict=True))


def states_of(row, shapes):
    """Elements of the states of tensors that keep their shape."""
    total = 0
    for kind in row.states.values():
        for shape in shapes:
            numel = math.prod(shape)
            is_factored = kind is StateType.FACTORED and len(shape) > 1
            total += numel // shape[-1] + numel // shape[-2] if is_factored else numel
    return total


def step_of(made, shapes):
    """Bytes of a step's temporaries."""
    numels = [math.prod(shape) for shape in shapes]
    vectors = [made.updated_vector * (len(shape) == 1) for shape in shapes]
    updated = [
        (made.updated + vector) * numel + made.previous * before
        for numel, vector, before in zip(numels, vectors, [0, *numels], strict=False)
    ]
    return 4 * (made.all * sum(numels) + max(updated)) + made.mask_of_updated * max(numels)


def test_states_and_counters(measured):
    for (name, on_host, shapes, params), found in measured:
        row = torch_optimizers.row(name, params)
        assert found["states"] == states_of(row, shapes), (name, params)
        assert found["counters"] == row.counters * len(shapes), (name, params)
        beside = row.counters_beside and not on_host
        assert all(place is beside for place in found["beside"]), (name, params)


def test_what_a_step_materialises(measured):
    """Beside scalars, and rows and columns of matrices."""
    for (name, on_host, shapes, params), found in measured:
        row = torch_optimizers.row(name, params)
        predicted = step_of(row.host_step if on_host else row.step, shapes)
        assert abs(found["step"] - predicted) < 4 * 8000, (name, on_host, params)
