"""``simulate``: a user's own loop, unchanged, as one rank of many; and nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_jobs import HOST, config_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(__file__).parent / "data" / "scripts"
DRIVER = """
import json, runpy, sys
from zero_sizer.witnesses.simulated import simulate
with simulate(nodes=2, gpus_per_node=4, gpu="a100-80gb", steps=2) as sim:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
import torch
real = torch.empty(2)
print(json.dumps({
    "peak": sim.peak,
    "recording": sim.recording().to_json(),
    "after": [type(real).__name__, str(real.device), torch.cuda.is_available(),
              torch.distributed.is_initialized()],
}))
"""


def _simulate(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(SCRIPTS / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "zero",
    [
        {"stage": 2},
        {"stage": 2, "offload_optimizer": HOST},
        {"stage": 3},
        {"stage": 3, "offload_optimizer": HOST, "offload_param": HOST},
    ],
    ids=lambda zero: "-".join(map(str, zero)),
)
def test_a_plain_loop_runs_two_steps_as_rank_0_of_8(tmp_path, zero):
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(config_of(zero, gradient_accumulation_steps=2)))
    found = _simulate("plain_loop.py", config)
    phases = [(p["name"], p["step"], p["micro_step"]) for p in found["recording"]["phases"]]
    one = ("forward", "backward", "step")
    assert phases == [
        ("init", 0, 0),
        *((name, step, micro) for step in (0, 1) for micro in (0, 1) for name in one),
    ]
    assert found["recording"]["world_size"] == 8
    held = {row["category"]: row for row in found["recording"]["phases"][-1]["live"]}
    where = "host" if "offload_optimizer" in zero else "gpu"
    assert held["optimizer_states"]["device"] == where
    assert found["peak"]["gpu"] > held["optimizer_states"]["num_bytes"]


def test_nothing_is_left_behind(tmp_path):
    config = tmp_path / "ds.json"
    config.write_text(json.dumps(config_of({"stage": 1})))
    assert _simulate("plain_loop.py", config)["after"] == ["Tensor", "cpu", False, False]
