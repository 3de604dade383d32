"""Fixes really fix: applied as the user would, the job fits, with the peaks that were promised."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
from support.advise_jobs import job_on

from zero_sizer import sizing
from zero_sizer.advise.fixes import fixes
from zero_sizer.config import document
from zero_sizer.hardware.device import Device
from zero_sizer.report.fixes import fix_mapping, show_fixes
from zero_sizer.sizing import Verdict
from zero_sizer.speed import step_time


def sized(stage=2, micro_batch=4, model="llama-2-7b", gpu="a100-40gb", **rest):
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": stage},
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 2,
    }
    wanted = job_on(model, gpu, **{"checkpointing": False, "seq_len": 4096, **rest})
    return sizing.size(replace(wanted, document=document.from_mapping(config)))


def by_hand(job, fix):
    """The job after a user edited the config and added the flags."""
    values, workload, cluster = deepcopy(job.document.values), job.workload, job.cluster
    for change in fix.changes:
        if change.key == "--checkpointing":
            workload = replace(workload, checkpointing=change.value)
        elif change.key == "--loss":
            workload = replace(workload, loss=change.value)
        elif change.key in ("--adapter", "--quantization"):
            continue  # another model
        elif change.key == "--nodes":
            cluster = replace(cluster, nodes=change.value)
        else:
            node = values
            *parents, last = change.key.split(".")
            for name in parents:
                node = node.setdefault(name, {})
            if change.value is None:
                del node[last]
            else:
                node[last] = change.value
    text = document.from_mapping(values)
    return replace(job, document=text, workload=workload, cluster=cluster)


CASES = (
    {},
    {"stage": 1, "model": "llama-3-8b", "micro_batch": 2},
    {"stage": 0, "model": "gpt2-xl", "gpu": "a10g-24gb", "micro_batch": 6, "seq_len": 1024},
    {"stage": 3, "model": "llama-3-70b", "gpu": "h100-80gb", "nvme": "7TB"},
    {"stage": 3, "model": "llama-3-70b", "gpu": "h100-80gb", "micro_batch": 1},
)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_fix_makes_the_job_fit_as_promised(case):
    before = sized(**case)
    assert before.verdict is Verdict.DOES_NOT_FIT
    found = fixes(before)
    assert found
    for fix in found:
        after = sizing.size(by_hand(before.job, fix))
        assert after.verdict is Verdict.FITS, fix
        for device in Device:
            assert after.peaks[device].num_bytes == fix.peaks[device]
        old, new = (step_time(s.plan, s.job.cluster) for s in (before, after))
        ranks = before.plan.dp_world_size / after.plan.dp_world_size
        per_token = (new.seconds / new.tokens) / (old.seconds / old.tokens) * ranks
        assert fix.slowdown == pytest.approx(per_token)


def host_short(**zero):
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 3, **zero},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
    }
    return document.from_mapping(config)


@pytest.mark.parametrize(
    ("device", "flags"),
    [
        ("cpu", {"model": "mistral-7b", "gpu": "rtx-3090", "gpus": 4, "host_memory": "128GiB"}),
        ("nvme", {"model": "llama-2-13b", "gpu": "rtx-4090", "gpus": 1, "host_memory": "64GiB",
                  "nvme": "1TB"}),
    ],
)  # fmt: skip
def test_host_memory_is_made_to_do_before_nodes_are_asked_for(device, flags):
    pinned = {"device": device, "pin_memory": True, "nvme_path": "/x"}
    buffers = {"buffer_size": 164_000_000, "buffer_count": 8} if device == "nvme" else {}
    text = host_short(offload_optimizer=pinned, offload_param={**pinned, **buffers})
    wanted = job_on(**{**flags, "seq_len": 2048, "checkpointing": True, "attention": "sdpa"})
    before = sizing.size(replace(wanted, document=text))
    assert before.verdict is not Verdict.FITS
    found = fixes(before)
    changed = [{change.key for change in fix.changes} for fix in found]
    assert "--nodes" not in changed[0]
    host_keys = {"sub_group_size", "offload_optimizer.pin_memory", "offload_optimizer.ratio"}
    assert {k.removeprefix("zero_optimization.") for k in changed[0]} & host_keys
    for fix in found:
        assert sizing.size(by_hand(before.job, fix)).verdict is Verdict.FITS, fix


@pytest.mark.slow
def test_what_takes_several_changes_is_found_by_the_search():
    """Host and GPU are short by turns: unpinned, shared out and checkpointed it fits."""
    pinned = {"device": "cpu", "pin_memory": True}
    text = host_short(offload_optimizer=pinned, offload_param=pinned, overlap_comm=True)
    flags = {"gpus": 4, "host_memory": "128GiB", "seq_len": 2048, "attention": "sdpa"}
    wanted = job_on("mistral-7b", "rtx-3090", checkpointing=False, **flags)
    before = sizing.size(replace(wanted, document=text))
    assert before.verdict is Verdict.DOES_NOT_FIT
    found = fixes(before)
    first, second = found[:2]
    assert "--nodes" not in {change.key for fix in (first, second) for change in fix.changes}
    assert first.name == "ZeRO-3, all on host"  # the job's own comes first
    assert "zero_optimization.stage" not in {change.key for change in first.changes}
    for fix in found:
        after = sizing.size(by_hand(before.job, fix))
        assert after.verdict is Verdict.FITS, fix
        assert after.plan.micro_batch * after.plan.grad_accum == 1, fix
        for device in Device:
            assert after.peaks[device].num_bytes == fix.peaks[device]


def test_many_nodes_come_after_an_adapter():
    case = {"model": "llama-2-13b", "gpu": "a10g-24gb", "host_memory": "16GiB", "gpus": 1}
    adapter, nodes = [fix.name for fix in fixes(sized(stage=2, **case))]
    assert adapter.startswith("QLoRA")
    assert nodes.startswith("16 nodes")


def test_the_least_disruptive_comes_first():
    names = [fix.name for fix in fixes(sized())]
    assert names[0] == "checkpointing"
    assert not any("checkpointing" in name for name in names[1:])  # alone it is enough


def test_a_fix_keeps_the_train_batch():
    for fix in fixes(sized()):
        changed = {change.key: change.value for change in fix.changes}
        size = changed.get("train_micro_batch_size_per_gpu", 4)
        assert size * changed.get("gradient_accumulation_steps", 2) == 4 * 2


def test_an_absurd_micro_batch_is_no_endless_search():
    found = fixes(sized(model="gpt2", micro_batch=2**30, seq_len=1024))
    sizes = {c.value for fix in found for c in fix.changes if "micro_batch" in c.key}
    assert sizes
    assert max(sizes) <= 4096


@pytest.mark.slow
def test_a_job_that_fits_needs_none():
    assert fixes(sized(model="gpt2", micro_batch=1, seq_len=1024)) == []


def test_where_host_memory_is_unknown_the_need_is_told(capsys):
    found = fixes(sized(model="llama-3-70b", gpu="h100-80gb", host_memory=None))
    offloaded = [fix for fix in found if "host" in fix.name]
    assert offloaded
    assert all(Device.HOST in fix.unknown for fix in offloaded)
    show_fixes(found)
    assert "host" in capsys.readouterr().out
    assert json.loads(json.dumps([fix_mapping(fix) for fix in found]))[0]["changes"]


def test_the_users_config_is_not_touched():
    before = sized()
    values = deepcopy(before.job.document.values)
    fixes(before)
    assert before.job.document.values == values


def _names(**case):
    return [fix.name for fix in fixes(sized(**case))]


def test_ligers_loss_is_a_fix_where_logits_decide():
    """A large vocabulary, recomputed blocks: nothing else is as high as the logits' copies."""
    case = {"model": "llama-3.2-1b", "gpu": "a10g-24gb", "micro_batch": 8, "checkpointing": True}
    assert _names(**case)[0] == "fused linear loss (Liger)"


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        {"model": "gpt2", "gpu": "a10g-24gb", "micro_batch": 64, "seq_len": 1024},  # not Liger's
        {"model": "llama-3.2-1b", "gpu": "a10g-24gb", "micro_batch": 16, "loss": "fused"},
    ],
)
def test_it_is_none_for_another_model_or_another_loss(case):
    found = _names(checkpointing=True, **case)
    assert found
    assert not [name for name in found if "Liger" in name]
