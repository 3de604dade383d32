"""What the simulation remembers and shortens changes no byte beside runs that ask torch."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from support.simulated_jobs import HOST, TINY_LLAMA, request_for

from zero_sizer.dryrun.simulated import parent

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

BUCKET = {"reduce_bucket_size": 20_000}
SHALLOW = {**TINY_LLAMA, "num_hidden_layers": 2}
MIXTRAL = {
    **SHALLOW,
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
ON_HOST = {"offload_optimizer": HOST, "offload_param": HOST}


def _request(zero, **more):
    zero = {**zero, **BUCKET} if zero["stage"] else zero
    return request_for(zero, keep_events=True, **{"hf_config": SHALLOW, **more})


REQUESTS = {
    "no ZeRO": _request({"stage": 0}),
    "stage 1, accumulated": _request(
        {"stage": 1}, config={"gradient_accumulation_steps": 2}, attention="eager"
    ),
    "stage 2, on the host": _request({"stage": 2, "offload_optimizer": HOST}),
    "stage 3, checkpointed": _request({"stage": 3}, ranks=64, checkpointing=True),
    "stage 3, on the host": _request({"stage": 3, **ON_HOST}, attention="sdpa"),
    "LoRA": _request({"stage": 3}, lora=LORA, checkpointing=True),
    "experts": _request({"stage": 3}, hf_config=MIXTRAL, checkpointing=True),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name -> (the run as it is, and one with nothing remembered), in the child's JSON."""
    requests = list(REQUESTS.values())
    short = parent.answers(requests)
    folder = tmp_path_factory.mktemp("plainly")
    question = folder / "requests.json"
    question.write_text(json.dumps([replace(r, short_loops=False).to_json() for r in requests]))
    line = [sys.executable, "-m", "support.plainly", str(question), str(folder)]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    env = {**os.environ, "PYTHONPATH": paths}
    subprocess.run(line, check=True, capture_output=True, env=env)
    plain = [json.loads((folder / f"{i}.json").read_text()) for i in range(len(requests))]
    return dict(zip(REQUESTS, zip(short, plain, strict=True), strict=True))


@pytest.mark.parametrize("name", REQUESTS)
def test_every_byte_is_one_that_torch_itself_asks_for(runs, name):
    short, plain = runs[name]
    assert "error" not in short, short
    for one, other in zip(short["phases"], plain["phases"], strict=True):
        assert one["name"] == other["name"]
        assert one["device"]["gpu"] == other["device"]["gpu"]
    assert _traffic(short) == _traffic(plain)


def test_a_run_hands_on_what_torchs_own_operators_answered(tmp_path, monkeypatch):
    import torch

    from zero_sizer.simulator import handed_on, remembered

    tensor = (torch.Size([2]), (1,), torch.float32, torch.device("cpu"))
    key = (torch.float32, (tensor, (int, 3), float, None), (("dtype", torch.bfloat16),))
    made = (None, ((2,), (1,), torch.bfloat16, torch.device("cpu"), "host"))
    add, copy = torch.ops.aten.add.Tensor, torch.ops.aten.copy_.default
    other = torch.ops.prims.add.default  # a library's that is not handed on
    first = {add: {"known": made}, other: {key: made}}
    monkeypatch.setattr(handed_on, "ANSWERS", first)
    before = handed_on.counted()
    first[add][key], first[copy] = made, {key: remembered.IN_PLACE}
    handed_on.write(tmp_path / "learned", before)
    monkeypatch.setattr(handed_on, "ANSWERS", next_ := {add: {"own": made}})
    handed_on.read(tmp_path / "learned")
    assert next_ == {add: {"own": made, key: made}, copy: {key: remembered.IN_PLACE}}
    assert next_[copy][key] is remembered.IN_PLACE


def _traffic(run):
    """Every request and free, but for pageable memory.

    Modules that peft imports make tensors there, in the first run of a process only, and what the
    garbage collector finds when depends on what else Python does.
    """
    return Counter((event[0], *event[2:]) for event in run["events"] if event[4] != "host")
