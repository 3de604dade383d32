"""The Trainer's optimizers against their packages: what each keeps, and what a step makes.

The packages' own code runs some steps on the simulated GPU. Unified memory, which only a driver
has, is stood in for by memory of the host.
"""

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from optimizers.test_torch_optimizers import step_of

from zero_sizer.ledger.entries.states import quantized_numel
from zero_sizer.optimizers import trainer
from zero_sizer.optimizers.table import StateType

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DRIVER = """
import json, sys
from zero_sizer.simulator.simulation import Rank, simulated
found = {}
with simulated(Rank()) as simulation:
    import torch
    from transformers import Trainer, TrainingArguments
    tracker = simulation.tracker
    try:
        from bitsandbytes import functional
    except ImportError:
        functional = None
    if functional is not None:
        paged = []
        def get_paged(*shape, dtype, device):
            paged.append(torch.zeros(*shape, dtype=dtype))
            paged[-1].is_paged, paged[-1].page_deviceid = True, 0
            return paged[-1]
        functional.get_paged = get_paged
        functional.fill = functional.prefetch_tensor = lambda *args, **kwargs: None
    def measure(name, shapes):
        arguments = TrainingArguments(output_dir="unused", optim=name, use_cpu=True)
        made, options = Trainer.get_optimizer_cls_and_kwargs(arguments, None)
        weights = [torch.nn.Parameter(torch.zeros(shape, device="simgpu:0")) for shape in shapes]
        optimizer = made(weights, **options)
        if hasattr(optimizer, "train"):
            optimizer.train()
        for _ in range(8):  # RAdam rectifies after some
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            before = tracker.live("gpu")
            tracker.start_phase("step")
            optimizer.step()
        sizes, seen = {}, set()
        for state in optimizer.state.values():
            for value in state.values():
                if torch.is_tensor(value) and id(value) not in seen:
                    seen.add(id(value))
                    key = f"{value.device.type} {value.dtype}".replace("torch.", "")
                    sizes[key] = sizes.get(key, 0) + value.numel()
        return {"states": sizes, "step": tracker.peak("gpu") - before}
    names, shapes = json.loads(sys.stdin.read())
    for name in names:
        found[name] = measure(name, shapes)
print(json.dumps(found))
"""
SHAPES = [[4095], [64, 64], [99_999], [100_000], [640, 500], [500, 640], [4097]]
NEEDS = {"bitsandbytes": ("8bit", "32bit", "bnb"), "schedulefree": ("schedule_free",)}
TABLES = 256  # entries of each table that codes index


def package_of(name):
    return next((p for p, parts in NEEDS.items() if any(part in name for part in parts)), "torch")


NAMES = sorted(
    name for name in trainer.NAMES - trainer.NOT_MODELLED if find_spec(package_of(name)) is not None
)


@pytest.fixture(scope="module")
def measured():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER],
        input=json.dumps([NAMES, SHAPES]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def kept(row):
    """Device and dtype -> elements, by the row."""
    found = {}

    def add(place, dtype, numel):
        key = f"{place} {dtype}"
        found[key] = found.get(key, 0) + numel

    for shape in SHAPES:
        numel = math.prod(shape)
        for kind in row.states.values():
            is_factored = kind is StateType.FACTORED and len(shape) > 1
            count = sum(shape) if is_factored else quantized_numel(kind, numel)
            is_paged = row.paged and numel >= 100_000 and kind is not StateType.STATISTICS
            add(
                "cpu" if is_paged else "simgpu",
                "uint8" if kind is StateType.CODES else "float32",
                count,
            )
        add("simgpu" if row.counters_beside else "cpu", "float32", row.counters)
    codes = sum(kind is StateType.CODES for kind in row.states.values())
    add("simgpu", "float32", codes * TABLES)
    return {key: numel for key, numel in found.items() if numel}


@pytest.mark.parametrize("name", NAMES)
def test_states(measured, name):
    assert measured[name]["states"] == kept(trainer.row(name, swaps=False))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_step_materialises(measured, name):
    predicted = step_of(trainer.row(name, swaps=False).step, SHAPES)
    assert abs(measured[name]["step"] - predicted) < 4 * 8000
