"""Rules about the optimizer that the Trainer brings.

tests/ledger/test_trainer_optimizer_parity.py shows them on the engine.
"""

import pytest
from support.plans import equal_tensors, make_job

from zero_sizer import models, sizing
from zero_sizer.findings import Direction
from zero_sizer.hardware.device import Device
from zero_sizer.models.spec import ModelSpec, Tensor

TWO = ModelSpec(
    name="two groups", origin="test", parameters=(Tensor("w", (64, 64)), Tensor("bias", (64,)))
)
OFFLOAD = {"offload_optimizer": {"device": "cpu"}}


def found(optim, stage, spec=TWO, zero=None, origin="--optim", zero_init=False, **more):
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage, **(zero or {})},
        **more,
    }
    job = make_job(config, spec, 2, optim=optim, zero_init=zero_init, origins={"optim": origin})
    codes = (
        "as-the-trainer",
        "assumed-zero-init",
        "trainer-optimizer",
        "optim-ignored",
        "optim-swapped",
        "paged-states",
        "optimizer-compiled",
    )
    return {f.code for f in sizing.size(job).findings if f.code in codes}


@pytest.mark.slow
@pytest.mark.parametrize(
    "optim", ["galore_adamw", "apollo_adamw", "lomo", "adalomo", "schedule_free_adamw"]
)
def test_what_fails_under_zero(optim):
    assert found(optim, 2) == {"trainer-optimizer"}


def test_what_works_without_zero():
    assert found("galore_adamw", 0, bf16={"enabled": True}) == set()
    assert found("schedule_free_adamw", 0) == set()
    assert found("schedule_free_adamw", 0, bf16={"enabled": True}) == {"trainer-optimizer"}
    assert found("lomo", 0) == {"trainer-optimizer"}


def test_adagrad_fails_where_the_trainer_makes_two_groups():
    assert found("adagrad", 2) == {"trainer-optimizer"}
    assert found("adagrad", 2, equal_tensors(4000, 8)) == set()
    assert found("adagrad", 0) == set()


def test_offload_puts_deepspeeds_own_in_its_place():
    assert found("adamw_bnb_8bit", 2, zero=OFFLOAD) == {"optim-swapped"}
    assert found("adamw_torch", 2, zero=OFFLOAD) == set()
    assert found("lomo", 2, zero=OFFLOAD, origin="default of x") == set()
    assert found("adafactor", 2, zero=OFFLOAD, zero_force_ds_cpu_optimizer=False) == set()


def test_a_config_with_an_optimizer_wins():
    own = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
    assert found("adafactor", 2, **own) == {"optim-ignored"}
    assert found("adafactor", 2, origin="default of axolotl", **own) == set()


def test_what_is_taken_for_granted_is_said():
    assert found(None, 3, zero_init=None) == {"as-the-trainer", "assumed-zero-init"}
    own = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
    assert found(None, 3, zero_init=None, **own) == {"assumed-zero-init"}
    assert found(None, 3, **own) == set()
    assert found(None, 2, zero_init=None, **own) == set()


def test_paged_states_are_said():
    assert found("paged_adamw_8bit", 2) == {"paged-states"}


def test_a_compiled_step_may_cost_more_than_is_counted():
    assert found("adamw_torch_8bit", 2) == {"optimizer-compiled"}
    offloaded = found("adamw_torch_4bit", 2, zero=OFFLOAD)
    assert "optimizer-compiled" not in offloaded  # accelerate puts DeepSpeed's own in its place


def test_the_older_default_counts_as_it_does_when_it_is_named():
    """Llama-2-7B at ZeRO-2 on 2 GPUs: the step is the peak, and foreach adds to it."""
    llama = models.load("llama-2-7b")
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}
    work = {"checkpointing": True, "seq_len": 2048}
    unnamed, older, fused = (
        sizing.size(make_job(config, llama, 2, optim=optim, **work))
        for optim in (None, "adamw_torch", "adamw_torch_fused")
    )
    more = older.peaks[Device.GPU].num_bytes - fused.peaks[Device.GPU].num_bytes
    (note,) = [f for f in unnamed.findings if f.code == "as-the-trainer"]
    assert (note.direction, note.num_bytes) == (Direction.COST, more)
    assert more > 6 * 2**30
    assert unnamed.needs[Device.GPU].high == fused.needs[Device.GPU].high + more
    assert unnamed.needs[Device.GPU].low == fused.needs[Device.GPU].low
