"""From a job to what a rank is asked to do, and from recordings to rows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import make_job

from zero_sizer import models
from zero_sizer.config import document, resolve
from zero_sizer.crosscheck import compare
from zero_sizer.dryrun.engine_config import engine_config
from zero_sizer.dryrun.from_job import rank_task, refuse_packed
from zero_sizer.dryrun.recording import LiveBuffer, PhaseRecord, RankRecord
from zero_sizer.dryrun.truncate import cut_job, cut_model
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.sizing import size

AUTO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": 1e-9}},
    "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}},
    "wandb": {"enabled": True},
    "zero_optimization": {
        "stage": 3,
        "reduce_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "offload_optimizer": {"device": "nvme", "nvme_path": "/local_nvme"},
    },
}


def test_every_auto_is_filled_or_left_to_deepspeed():
    spec = models.load("qwen2.5-1.5b")
    job = make_job(AUTO, spec, 4, micro_batch=3, grad_accum=2, seq_len=16, precision="bf16")
    config = rank_task(job, nvme_path="swap").config
    assert "auto" not in json.dumps(config)
    zero = config["zero_optimization"]
    hidden = spec.arch.hidden
    assert zero["reduce_bucket_size"] == hidden**2
    assert zero["stage3_param_persistence_threshold"] == 10 * hidden
    assert config["optimizer"] == {"type": "AdamW", "params": {"eps": 1e-9}}
    assert config["bf16"] == {"enabled": True}
    assert config["gradient_clipping"] == 1.0
    assert zero["offload_optimizer"]["nvme_path"] == "swap"


def test_the_run_keeps_micro_batch_and_accumulation_at_any_number_of_ranks():
    config = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 2}
    job = make_job(config, models.load("gpt2"), 8, micro_batch=None, seq_len=16)
    task = rank_task(job)
    assert task.config["train_micro_batch_size_per_gpu"] == 2
    assert task.config["gradient_accumulation_steps"] == 4  # 64 / 2 / 8 ranks
    assert "train_batch_size" not in task.config
    assert any("train_batch_size" in note for note in task.notes)


def test_what_writes_files_or_calls_services_is_left_out_and_said():
    job = make_job(AUTO, models.load("gpt2"), 1, seq_len=16, precision="bf16")
    settings, _ = resolve.resolve(job.document, job.workload, world_size=1, model=job.model)
    config, notes = engine_config(job.document, settings, job.workload, job.model, micro_batch=1)
    assert not {"wandb", "scheduler"} & set(config)
    assert {note.split()[0] for note in notes} >= {"wandb", "scheduler"}
    assert "wandb" in job.document.values  # the user's own config is not touched


@pytest.mark.parametrize("name", ["qwen2.5-1.5b", "gpt2", "t5-3b", "mixtral-8x7b", "bert-large"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_cut_keeps_the_first_layers_whole(name, layers):
    whole = models.load(name)
    cut = cut_model(whole, layers)
    stacks = 2 if whole.arch.decoder_layers else 1
    per_block = whole.num_params - cut_model(whole, whole.arch.num_layers - 1).num_params
    embeddings = whole.num_params - per_block * whole.arch.num_layers
    # T5's first blocks carry the relative position biases, which are counted with the rest here.
    assert cut.num_params == embeddings + per_block * layers
    assert cut.arch.num_layers == layers
    assert stacks == 1 or cut.hf_config["num_decoder_layers"] == layers
    assert str(layers) in cut.name


def test_a_cut_model_is_what_its_cut_config_describes(tmp_path):
    cut = cut_model(models.load("qwen2.5-1.5b"), 2)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dict(cut.hf_config)))
    assert models.load(str(path)).parameters == cut.parameters


def test_no_cut_is_the_same_job_and_a_factory_cannot_be_cut():
    job = make_job({}, models.load("gpt2"), 1)
    assert cut_job(job, None) is job
    made = ModelSpec(name="f", origin="factory net:build", parameters=(Tensor("w", (2,)),))
    with pytest.raises(UnsupportedError, match="--layers"):
        cut_model(made, 1)


@pytest.mark.parametrize("name", ["gpt2", "t5-3b"])
def test_a_cut_to_more_layers_than_there_are_is_refused(name):
    whole = models.load(name)
    assert cut_model(whole, whole.arch.num_layers).num_params == whole.num_params
    with pytest.raises(InputError, match=f"give at most {whole.arch.num_layers}"):
        cut_model(whole, whole.arch.num_layers + 1)


def test_layers_are_counted_from_names_where_no_width_says():
    tensors = tuple(Tensor(f"blocks.{i}.w", (2,)) for i in range(3))
    spec = ModelSpec(name="m", origin="m.safetensors", parameters=tensors)
    assert len(cut_model(spec, 2).parameters) == 2
    with pytest.raises(InputError, match="m has 3 layers"):
        cut_model(spec, 4)


NUMBERS = "params=1e7,layers=2,hidden=64,heads=2,vocab=100"


def test_packed_weights_of_numbers_are_not_run():
    """The stand-in takes means of its tensors, and codes have none."""
    flags = Flags(model=NUMBERS, quantization="nf4", adapter="r=2,targets=all-linear")
    with pytest.raises(UnsupportedError, match="only shapes are known") as caught:
        rank_task(without_config({}, flags))
    assert "--quantization" in caught.value.remedy


def test_runs_with_values_have_no_packed_weights():
    """They were built unpacked before, and called quantized."""
    flags = Flags(model="gpt2", quantization="nf4", adapter="r=2,targets=all-linear")
    job = without_config({}, flags)
    with pytest.raises(UnsupportedError, match="simulated"):
        refuse_packed(job)
    refuse_packed(without_config({}, Flags(model="gpt2")))
    assert rank_task(job).quantization["bits"] == 4


def test_positions_that_a_table_lacks_are_noted_on_a_run():
    """A simulated embedding looks nothing up, so that it cannot refuse them."""
    for seq_len, noted in ((1024, False), (1025, True)):
        task = rank_task(make_job({}, models.load("gpt2"), 1, seq_len=seq_len))
        assert any("1,024 positions" in note for note in task.notes) == noted


SIZES = st.integers(0, 10**9)


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=6))
def test_the_rank_furthest_off_is_shown(pairs):
    rows = [
        compare.Row(
            witness="w",
            device="gpu",
            phase="init",
            quantity="live",
            rank=rank,
            predicted=predicted,
            witnessed=witnessed,
        )
        for rank, (predicted, witnessed) in enumerate(pairs)
    ]
    (shown,) = compare.worst_ranks(rows)
    assert abs(shown.predicted - shown.witnessed) == max(abs(p - w) for p, w in pairs)


@given(SIZES, SIZES)
def test_relative_error_is_of_the_witness(predicted, witnessed):
    row = compare.Row(
        witness="w",
        device="gpu",
        phase="init",
        quantity="live",
        predicted=predicted,
        witnessed=witnessed,
    )
    if row.error is None:
        assert witnessed == 0 < predicted
    else:
        assert witnessed * (1 + row.error) == pytest.approx(predicted)


def test_a_recording_of_the_prediction_has_no_error():
    """A rank that holds exactly the ledger gives rows that all agree, category by category."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    }
    job = make_job(config, models.load("gpt2"), 2, seq_len=64)
    sizing = size(job)
    phases = []
    for name in compare.BOUNDARIES:
        live = tuple(
            LiveBuffer(
                name=a.name,
                category=a.category.value,
                device=a.device.value,
                pinned=a.pinned,
                num_bytes=a.num_bytes,
            )
            for a in compare.left_by(sizing.plan, 0, name)
        )
        phases.append(PhaseRecord(name=name, micro_step=0, device={}, live=live))
    rank = RankRecord(rank=0, phases=tuple(phases))
    rows = list(compare.rank_rows(sizing.plan, rank, "launched"))
    assert {row.phase for row in rows} == set(compare.BOUNDARIES)
    assert [row for row in rows if row.error != 0] == []


def test_persistent_parameters_are_there_between_backward_and_step():
    """The step lets them go and gathers them again (stage3.py:2841); temporaries are gone."""
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    job = make_job(config, models.load("gpt2"), 2, seq_len=64)
    after = [a for a in size(job).allocations if compare.is_live(a, "backward")]
    assert "persistent_parameters" in {a.name for a in after}
    assert {"temporaries", "activations"}.isdisjoint({a.category.value for a in after})


def test_the_recorded_config_decides_what_a_recording_is_compared_with():
    job = make_job(AUTO, models.load("gpt2"), 16, seq_len=64, precision="bf16")
    task = rank_task(job)
    recording = compare.Recording(
        how="launched",
        versions={},
        world_size=3,
        job=task.to_json(),
        ranks=(RankRecord(rank=0, phases=()),),
    )
    recorded = compare.recorded_job(job, recording)
    assert recorded.cluster.world_size == 3
    assert recorded.document.values == document.from_mapping(task.config).values
