"""Variants of checkpointing against what torch, transformers and DeepSpeed do."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpointed_model import BLOCKS, WIDTH

from zero_sizer import activations, models
from zero_sizer.activations import checkpointing as checkpoints
from zero_sizer.activations import masks
from zero_sizer.activations.checkpointing import Inputs
from zero_sizer.config import document
from zero_sizer.config.workload import Checkpointing, Workload
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.job import values
from zero_sizer.job.read import Job
from zero_sizer.ledger.entries import ENTRIES
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import Phase
from zero_sizer.ledger.peak import phase_peaks, totals
from zero_sizer.sizing import size
from zero_sizer.units import DType

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow

from zero_sizer.dryrun.simulated import run_requests  # noqa: E402
from zero_sizer.dryrun.simulated.parent import request_of  # noqa: E402
from zero_sizer.dryrun.simulated.request import Request  # noqa: E402

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "support")])
NOT_SIMULATED = {"cublas_workspace"}  # fake tensors never call the library

DEPTH, AT = 5, (2, 512)
MODELS = {  # bytes of an input; whether blocks save theirs as it is
    "smollm2-135m": (2 * 512 * 576 * 2, False),
    "opt-125m": (2 * 512 * 768 * 2, True),
}
VARIANTS = {
    "every-2": {"every_n_layers": 2},
    "offload": {"offload": True},
    "every-3,offload": {"every_n_layers": 3, "offload": True},
    "every-3,reentrant": {
        "activation_checkpointing_kwargs": {"use_reentrant": True},
        "every_n_layers": 3,
    },
}


PADDED = [["sdpa", False], ["sdpa", True], ["flash", False], ["flash", True]]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Model -> variant -> its sections."""
    cases = [{"model": m, "depth": DEPTH, "at": AT, "variants": VARIANTS} for m in MODELS]
    cases.append({"model": "smollm2-135m", "depth": DEPTH, "at": AT, "padded": PADDED})
    path = tmp_path_factory.mktemp("traces") / "cases.json"
    path.write_text(json.dumps(cases))
    command = [sys.executable, str(ROOT / "tests" / "support" / "checkpoint_traces.py"), str(path)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(zip([*MODELS, "padded"], json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("said", VARIANTS)
def test_every_block_has_the_levels_of_the_traced_variant(traced, model, said):
    rounding = 2**18  # of each storage, copies of ids, rotary tables; a block makes 100 times that
    seen = traced[model][said]
    step = _variant(model, said)
    made = list(_sections(step))
    assert len(made) == len(seen)
    for (peak, end), (block, is_backward, seen_peak, seen_end) in zip(made, seen, strict=True):
        where = f"{'backward' if is_backward else 'forward'} of {block or 'the rest'}"
        assert peak == pytest.approx(seen_peak, abs=rounding), where
        assert end == pytest.approx(seen_end, abs=rounding), where


@pytest.mark.parametrize(("attention", "checkpointing"), PADDED)
def test_padding_adds_to_every_block_what_is_traced(traced, attention, checkpointing):
    profile, rounding = activations.load(models.load("smollm2-135m")), 2**16
    step = profile.evaluate(
        "bf16", "flash", *AT, checkpointing=checkpointing, depths={"model.layers": DEPTH}
    )
    kind = masks.sdpa_mask if attention == "sdpa" else masks.flash_copies
    mask = kind(models.load("smollm2-135m").arch, *AT, DType.BF16)
    every = (lambda block: True) if checkpointing else None
    made = list(_sections(masks.masked(step, mask, every)))
    seen = traced["padded"][f"{attention} {checkpointing}"]
    assert len(made) == len(seen)
    for (peak, end), (block, is_backward, seen_peak, seen_end) in zip(made, seen, strict=True):
        assert end == pytest.approx(seen_end, abs=rounding), block
        # Where a forward is recomputed later, its highest point may lie elsewhere.
        spare = mask.per_block if checkpointing and block and not is_backward else 0
        assert -rounding <= peak - seen_peak <= spare + rounding, block


def _variant(model, said):
    profile, how = activations.load(models.load(model)), values.checkpointing(said)
    size, kept = MODELS[model]
    depths = dict.fromkeys(profile.depths, DEPTH)
    plain, every = (
        profile.evaluate("bf16", "flash", *AT, checkpointing=on, depths=depths)
        for on in (False, True)
    )
    step = checkpoints.mixed(every, plain, how.recomputes)
    inputs = Inputs(
        num_bytes=size,
        reentrant=how.by == "reentrant",
        leave=how.offload,
        kept=kept,
        held_by_model=how.offload,
    )
    return checkpoints.placed(step, plain, how.recomputes, inputs)


def _sections(step):
    """(peak, end) of every section in the order they run."""
    for parts, name in ((step.parts, "forward"), (step.parts[::-1], "backward")):
        for part in parts:
            section = getattr(part, name)
            yield from [(max(s.peak for s in section.steps), section.end)] * part.count


CPU = {"cpu_checkpointing": True}
SPLIT = {"partition_activations": True}
ROOM = {**SPLIT, "contiguous_memory_optimization": True, "number_checkpoints": 9}
JOBS = {  # checkpointing, DeepSpeed's section, attention and sequences
    "every 3 at stage 3": ("every-3", {}, "sdpa", "packed"),
    "offload": ("offload", {}, "flash", "equal"),
    "cpu, every 2": ("every-2,deepspeed", CPU, "sdpa", "padded"),
    "contiguous, cpu": ("deepspeed", {**ROOM, **CPU}, "flash", "packed"),
    "padded": (False, {}, "sdpa", "padded"),
}


def _job(name, model="qwen3-0.6b"):
    said, section, attention, sequences = JOBS[name]
    stage = 3 if "stage 3" in name else 2
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 10**7},
        "activation_checkpointing": section,
    }
    how = values.checkpointing(said)
    job = Job(
        document=document.from_mapping(config),
        model=models.load(model),
        cluster=Cluster(nodes=1, gpus_per_node=8, origins={}),
        workload=Workload(
            seq_len=1000,
            attention=attention,
            sequences=sequences,
            checkpointing=bool(said),
            checkpointing_how=how if isinstance(how, Checkpointing) else Checkpointing(),
            zero_init=stage == 3,
        ),
        origins={},
    )
    return cut_job(job, 4)


@pytest.fixture(scope="module")
def runs():
    """Recordings of all jobs and of the factory's model, from one process."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", PYTHONPATH)
    requests = [request_of(_job(name), rank=0, steps=2) for name in JOBS]
    found = run_requests([*requests, *map(_factory, SECTIONS)])
    patch.undo()
    failed = [str(run) for run in found if isinstance(run, Exception)]
    assert not failed
    return found


def test_ledger_and_simulated_engine_agree_in_forward_and_backward(runs):
    """GPU within 1 %; host to the byte but for shapes and counters."""
    wrong = []
    for name, run in zip(JOBS, runs, strict=False):
        job = _job(name)
        plan = replace(size(job).plan, rank=0)
        found = evaluate(ENTRIES, plan, explain=False)
        moments = totals([a for a in found if a.name not in NOT_SIMULATED], 1)
        for device, phase in ((d, p) for d in ("gpu", "host") for p in ("forward", "backward")):
            seen = _last(run, phase, device)
            predicted = phase_peaks(moments[Device(device)])[Phase(phase)]
            slack = 0.01 * seen if device == "gpu" else 2**20
            if abs(predicted - seen) > slack:
                wrong.append(f"{name} {device} {phase}: {predicted:,}, not {seen:,}")
    assert not wrong, "\n".join(wrong)


def _last(run, phase, device):
    records = [record for record in run.ranks[0].phases if record.name == phase]
    return records[-1].device[device]["max_allocated"]


SECTIONS = ({}, CPU, {**SPLIT, **CPU})


def _factory(section):
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 10**5},
        "activation_checkpointing": section,
    }
    return Request(
        config=config,
        factory="checkpointed_model:build",
        world_size=4,
        local_world_size=4,
        micro_batch=4,
        seq_len=1024,
        checkpointing=True,
        checkpointing_how={"by": "deepspeed"},
    )


def test_a_factorys_model_runs_with_deepspeeds_section(runs):
    """Its blocks call deepspeed.checkpointing: inputs leave the GPU, and arrive on the host."""
    runs = runs[len(JOBS) :]
    one = 4 * 1024 * WIDTH * 2
    gpu, host = ([_last(run, "forward", device) for run in runs] for device in ("gpu", "host"))
    # The forward is highest in the last block: its input and the two before it are on the GPU.
    assert gpu[0] - gpu[1] == pytest.approx((BLOCKS - 3) * one, abs=2**12)
    assert host[1] - host[0] == pytest.approx((BLOCKS - 1) * one, abs=2**12)
    assert gpu[0] - gpu[2] == pytest.approx((BLOCKS - 1) * one, abs=2**12)
    assert host[2] - host[0] == pytest.approx(BLOCKS * one, abs=2**12)
