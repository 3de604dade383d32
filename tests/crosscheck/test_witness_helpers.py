"""DeepSpeed's estimate functions: documented outputs, and what separates them from the ledger."""

import json
from pathlib import Path

import pytest
from support.plans import make_job

from zero_sizer import models
from zero_sizer.hardware.device import Device
from zero_sizer.sizing import size

helpers = pytest.importorskip("zero_sizer.crosscheck.helpers")
pytest.importorskip("deepspeed")

DOCUMENTED = json.loads(
    (Path(__file__).parents[1] / "data/deepspeed_helper_outputs.json").read_text()
)
pytestmark = pytest.mark.slow  # importing deepspeed takes seconds


def spec_of(reference, folder):
    if isinstance(reference, str):
        return models.load(reference)
    path = folder / "config.json"
    path.write_text(json.dumps(reference))
    return models.load(str(path))


def printed(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f}"


@pytest.mark.parametrize(
    "table",
    DOCUMENTED["tables"],
    ids=lambda t: f"stage {t['stage']} on {t['gpus_per_node']} GPUs, {t['model_source']}",
)
def test_documented_outputs_are_reproduced_to_the_printed_digit(table, tmp_path):
    spec = spec_of(table["model"], tmp_path)
    largest = helpers.largest_layer(spec)
    assert spec.num_params // 10**6 == table["total_m"]
    assert largest // 10**6 == table["largest_layer_m"]
    lines = helpers.estimates(
        spec.num_params, largest, nodes=table["nodes"], gpus_per_node=table["gpus_per_node"]
    )
    by_options = {line.options: line for line in lines if line.stage == table["stage"]}
    for row in table["rows"]:
        line = by_options[row["options"]]
        assert printed(line.host_bytes) == row["host"], row
        # An outdated row of the page is held against today's formula, and must differ from it.
        assert printed(line.gpu_bytes) == row.get("gpu_now", row["gpu"]), row
        assert ("outdated" in row) == (printed(line.gpu_bytes) != row["gpu"])


def test_printed_table_is_what_the_value_functions_return(capsys):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs_all_cold

    estimate_zero3_model_states_mem_needs_all_cold(123_456_789, 9_876_543, 4, 2)
    # Since Python 3.11 an f-string shows this enum with its class.
    out = capsys.readouterr().out.replace("OffloadDeviceEnum.", "")
    shown = [line.split("|") for line in out.splitlines() if "zero_init=" in line]
    lines = [
        line
        for line in helpers.estimates(123_456_789, 9_876_543, nodes=2, gpus_per_node=4)
        if line.stage == 3
    ]
    assert [
        (host.strip(), gpu.strip(), " ".join(options.split()).replace(" ,", ","))
        for host, gpu, options in shown
    ] == [
        (f"{printed(line.host_bytes)}GB", f"{printed(line.gpu_bytes)}GB", line.options)
        for line in lines
    ]


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_differences_add_up_to_the_whole_of_it(stage, offload):
    zero = {"stage": stage} | ({"offload_optimizer": {"device": "cpu"}} if offload else {})
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW"},
        "zero_optimization": zero,
    }
    spec = models.load("qwen2.5-1.5b")
    sizing = size(make_job(config, spec, 4, seq_len=512, zero_init=stage == 3))
    line = helpers.matching(sizing.plan, helpers.for_job(sizing))
    assert (line.stage, line.offload_optimizer) == (stage, offload)
    parts = helpers.differences(sizing, line)
    for device, helper in ((Device.GPU, line.gpu_bytes), (Device.HOST, line.host_bytes)):
        total = sum(part.num_bytes for part in parts if part.device is device)
        assert total == sizing.peaks[device].num_bytes - helper


def test_no_helper_speaks_about_stage_1():
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {"stage": 1},
    }
    sizing = size(make_job(config, models.load("gpt2"), 2, seq_len=8))
    assert helpers.matching(sizing.plan, helpers.for_job(sizing)) is None


@pytest.mark.parametrize("gpus", [2, 8])
def test_a_variant_changes_what_the_line_says_and_nothing_else(gpus):
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {
            "stage": 3,
            "reduce_bucket_size": 12345,
            "offload_param": {"device": "nvme", "nvme_path": "x", "pin_memory": False},
        },
    }
    job = make_job(config, models.load("gpt2"), gpus, seq_len=8)
    for line in helpers.for_job(size(job)):
        plan = size(helpers.variant(job, line)).plan
        assert helpers.matching(plan, [line]) == line
        assert plan.reduce_bucket_size == 12345
