"""The Trainer's optimizers against their packages: what each keeps, and what a step makes.

The packages' own code runs some steps on the simulated GPU. Unified memory, which only a driver
has, is stood in for by memory of the host.
"""

import json
import math
import os
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
    torch.compile = lambda function, **options: function  # of torchao: no kernels are made here
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
        kept = list(optimizer.state.values())
        for group in optimizer.param_groups:
            kept += group.get("state", {}).values()  # GrokAdamW's
        for value in (value for state in kept for value in state.values()):
            parts = [getattr(value, part) for part in getattr(value, "tensor_attrs", ())]
            for tensor in parts or [value]:
                if torch.is_tensor(tensor) and id(tensor) not in seen:
                    seen.add(id(tensor))
                    key = f"{tensor.device.type} {tensor.dtype}".replace("torch.", "")
                    sizes[key] = sizes.get(key, 0) + tensor.numel()
        return {"states": sizes, "step": tracker.peak("gpu") - before}
    names, shapes = json.loads(sys.stdin.read())
    for name in names:
        found[name] = measure(name, shapes)
print(json.dumps(found))
"""
SHAPES = [[4095], [64, 64], [99_999], [100_000], [640, 500], [500, 640], [4097]]
NEEDS = {
    "torchao": ("torch_8bit", "torch_4bit"),
    "bitsandbytes": ("8bit", "32bit", "bnb", "ademamix"),
    "schedulefree": ("schedule_free",),
    "grokadamw": ("grokadamw",),
    "optimi": ("stable_adamw",),
}
APART = Path(sys.prefix) / "apart"
"""torchao, which transformers and PEFT would look into where they see it (scripts/get_programs)."""
TABLES = 256  # entries of each table that codes index


CODES = (StateType.CODES, StateType.BLOCK_CODES, StateType.HALF_CODES)


def package_of(name):
    return next((p for p, parts in NEEDS.items() if any(part in name for part in parts)), "torch")


def is_there(package):
    return find_spec(package) is not None or (APART / package).is_dir()


NAMES = sorted(name for name in trainer.NAMES - trainer.NOT_MODELLED if is_there(package_of(name)))
COMPILED = {name for name in NAMES if trainer.row(name, swaps=False).is_compiled}
OF_TRITON = {"stable_adamw"}  # one kernel a tensor on a GPU, where Triton is


@pytest.fixture(scope="module")
def measured():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER],
        input=json.dumps([NAMES, SHAPES]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(APART)))},
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
            is_on_host = is_paged or kind is StateType.HOST_COPY
            add("cpu" if is_on_host else "simgpu", "uint8" if kind in CODES else "float32", count)
        add("simgpu" if row.counters_beside else "cpu", "float32", row.counters)
    coded = {n.removesuffix("_slow") for n, k in row.states.items() if k is StateType.CODES}
    add("simgpu", "float32", len(coded) * TABLES)
    return {key: numel for key, numel in found.items() if numel}


@pytest.mark.parametrize("name", NAMES)
def test_states(measured, name):
    assert measured[name]["states"] == kept(trainer.row(name, swaps=False))


@pytest.mark.parametrize("name", sorted({*NAMES} - COMPILED - OF_TRITON))
def test_what_a_step_materialises(measured, name):
    predicted = step_of(trainer.row(name, swaps=False).step, SHAPES)
    assert abs(measured[name]["step"] - predicted) < 4 * 8000
