"""Saving and loading: host memory against accelerate's own copy and the engine's own gather."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from support.plans import make_job
from support.simulated_jobs import ADAMW, TINY_LLAMA, config_of, tiny_llama

from zero_sizer.answer import answer_of
from zero_sizer.findings import Direction
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import Moment, Phase
from zero_sizer.ledger.peak import phase_peaks
from zero_sizer.models.spec import Tensor
from zero_sizer.report.json import as_mapping
from zero_sizer.sizing import size

HOST = {"device": "cpu"}


def sized(spec, zero, ranks=4, **more):
    """A job on one node, sized."""
    job = make_job(config_of(zero, **more), spec, ranks, seq_len=32, attention="eager")
    return size(replace(job, workload=replace(job.workload, zero_init=None)))


def of(sizing, name):
    (found,) = [a for a in sizing.allocations if a.name == name]
    return found


def host(sizing):
    return phase_peaks(sizing.moments[Device.HOST])


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_each_process_copies_as_much_as_accelerate_does(tmp_path, tied):
    """Storages of the state dict that accelerate 1.15 hands on, at stages 0 to 2."""
    pytest.importorskip("deepspeed")
    transformers = pytest.importorskip("transformers")
    import torch
    from deepspeed.checkpoint.utils import clone_tensors_for_torch_save

    fields = {**TINY_LLAMA, "tie_word_embeddings": tied}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**fields)
    ).to(torch.bfloat16)
    copied = clone_tensors_for_torch_save(model.state_dict())
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in copied.values()}
    spec = tiny_llama(tmp_path, tie_word_embeddings=tied)
    predicted = of(sized(spec, {"stage": 2}), "state_dict_on_host")
    assert predicted.num_bytes == sum(storage.nbytes() for storage in storages.values())


_GATHER = """
import json, sys
import zero_sizer
config, fields = json.loads(sys.argv[1]), json.loads(sys.argv[2])
with zero_sizer.simulate(gpus_per_node=4, rank=int(sys.argv[3])) as sim:
    import deepspeed, torch, transformers
    built = transformers.AutoConfig.for_model(**fields)
    deepspeed.init_distributed(dist_backend="fake")
    with deepspeed.zero.Init(config_dict_or_path=config):
        model = transformers.AutoModelForCausalLM.from_config(built, dtype=torch.bfloat16)
    engine, *_ = deepspeed.initialize(model=model, config=config)
    before = sim._tracker.live_host()
    kept = engine._zero3_consolidated_16bit_state_dict()
    sys.__stdout__.write("\\n" + str(sim._tracker.live_host() - before) + "\\n")
"""


@pytest.mark.slow
def test_the_first_rank_alone_gathers_the_model_at_stage_3(tmp_path):
    zero = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
    config = config_of(zero)
    held = []
    for rank in (0, 1):
        arguments = (json.dumps(config), json.dumps(TINY_LLAMA), str(rank))
        command = [sys.executable, "-c", _GATHER, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        held.append(int(done.stdout.strip().splitlines()[-1]))
    sizing = sized(tiny_llama(tmp_path), zero)
    assert held == [of(sizing, "consolidated_state_dict").num_bytes, 0]
    assert sizing.moments[Device.HOST][Moment.SAVED] == held[0]  # once a node


def test_without_the_key_nothing_is_gathered(tmp_path):
    sizing = sized(tiny_llama(tmp_path), {"stage": 3})
    assert not [a for a in sizing.allocations if a.name == "consolidated_state_dict"]


def test_states_on_the_gpu_pass_through_the_host_those_on_it_do_not(tmp_path):
    spec = tiny_llama(tmp_path)
    written = of(sized(spec, {"stage": 2}), "storage_being_written")
    assert written.num_bytes == 4 * -(-spec.num_trainable // 4)
    offloaded = sized(spec, {"stage": 2, "offload_optimizer": HOST}, optimizer=ADAMW)
    assert not [a for a in offloaded.allocations if a.name == "storage_being_written"]


def test_what_saving_adds_lies_on_top_of_what_is_there_between_steps(tmp_path):
    spec = tiny_llama(tmp_path)
    sizing = sized(spec, {"stage": 2, "offload_optimizer": HOST})
    between = sizing.moments[Device.HOST][Moment.DONE]
    copies = 4 * of(sizing, "state_dict_on_host").num_bytes
    assert host(sizing)[Phase.SAVE] == between + copies
    assert sizing.peaks[Device.HOST].moment is Moment.SAVED


@pytest.mark.parametrize(("stage", "zero_init"), [(2, False), (3, True)])
def test_loading_takes_the_whole_model_in_each_process_unless_under_zero_init(
    tmp_path, stage, zero_init
):
    spec = tiny_llama(tmp_path)
    load = host(sized(spec, {"stage": stage}))[Phase.LOAD]
    assert load == (0 if zero_init else 4 * 2 * spec.num_params)


def test_the_json_has_every_phase(tmp_path):
    found = as_mapping(answer_of(sized(tiny_llama(tmp_path), {"stage": 2})))
    phases = ["init", "forward", "backward", "step", "save", "load"]
    assert list(found["phases"]["host"]) == phases
    assert found["phases"]["host"]["save"] >= found["phases"]["host"]["load"] > 0


def test_what_may_come_on_top_of_loading_is_said_where_host_memory_matters(tmp_path):
    spec = tiny_llama(tmp_path)
    said = {f.code: f for f in sized(spec, {"stage": 2, "offload_optimizer": HOST}).findings}
    assert "saving" in said["saved-in-every-process"].message
    assert not [f for f in said.values() if f.device == "host" and f.direction]  # all is counted
    experts = replace(
        spec, parameters=(*spec.parameters, Tensor("model.experts.gate_up", (4, 64, 64)))
    )
    said = {f.code: f for f in sized(experts, {"stage": 2, "offload_optimizer": HOST}).findings}
    finding = said["experts-stacked-to-load"]
    assert (finding.direction, finding.device) == (Direction.COST, "host")
    assert finding.num_bytes is None
    assert said["experts-split-to-save"].num_bytes == 2 * 4 * 64 * 64
    codes = {f.code for f in sized(experts, {"stage": 2}).findings}
    assert not codes & {"experts-stacked-to-load", "experts-split-to-save"}
