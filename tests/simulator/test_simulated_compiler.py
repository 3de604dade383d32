"""Simulated runs do without torch's compiler, and leave it as it was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import torch
from zero_sizer.simulator.uncompiled import uncompiled

def loaded():
    return sum(name.startswith("torch._dynamo") for name in sys.modules)

found = {}
with uncompiled():
    @torch.compile(fullgraph=True)
    def double(x):
        found["frames"] = sys._getframe(1).f_code.co_filename
        return 2 * x

    found["value"], found["caller"] = double(torch.ones(1)).item(), found["frames"]
    torch.utils.checkpoint.checkpoint(double, torch.ones(1), use_reentrant=True)
    torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1).zero_grad()
    found["few"] = loaded()
    import torch._dynamo.utils
    from torch._dynamo.source import ConstantSource, LocalSource
    found["whole"] = loaded()
    found["disabled"] = torch._dynamo.config.disable
    found["one module"] = torch._dynamo.utils is sys.modules["torch._dynamo.utils"]
    found["real"] = ConstantSource.__module__ == LocalSource.__module__ == "torch._dynamo.source"
found["after"] = torch._dynamo.config.disable
graphs = []

@torch.compile(backend=lambda graph, inputs: graphs.append(graph) or graph.forward)
def more(x):
    return x + 1

more(torch.ones(1))
found["graphs"] = len(graphs)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_what_is_compiled_runs_as_written_and_imports_no_compiler(found):
    assert found["value"] == 2
    assert found["caller"] == "<string>"  # called from the program itself, through no wrapper
    assert found["few"] < 6


def test_whoever_needs_the_compiler_gets_the_real_one_switched_off(found):
    assert found["whole"] > 50
    assert found["disabled"]
    assert found["one module"]
    assert found["real"]


def test_afterwards_torch_compiles_again(found):
    assert not found["after"]
    assert found["graphs"] == 1
