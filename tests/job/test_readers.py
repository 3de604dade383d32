"""Files of other tools as CONFIG: what each says, with file and line, and its tool's defaults."""

from pathlib import Path

import pytest

from zero_sizer import sizing
from zero_sizer.config.workload import REENTRANT
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.findings import Direction
from zero_sizer.job import read as job
from zero_sizer.job.fields import Flags
from zero_sizer.job.readers import swift
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.units import GIB

OTHERS = Path(__file__).parents[2] / "deepspeed_configs" / "others"
LLAMA = "meta-llama/Meta-Llama-3-8B"
# What each example means, by hand.
MEANT = {
    "llama_factory_lora.yaml": {
        "stage": 3,
        "batch": (2, 8),
        "seq_len": 4096,
        "precision": "bf16",
        "checkpointing_by": REENTRANT,
        "attention": "flash",
        "kernels": "liger",
        "num_workers": 4,
        "lora": 16,
    },
    "axolotl_qlora.yaml": {
        "stage": 2,
        "batch": (2, 4),
        "seq_len": 4096,
        "precision": "bf16",
        "checkpointing": True,
        "attention": "flash",
        "sequences": "packed",
        "optim": "adamw_bnb_8bit",
        "lora": 32,
        "bits": 4,
    },
    "swift_sft.sh": {
        "stage": 3,
        "batch": (1, 4),
        "seq_len": 8192,
        "precision": "bf16",
        "checkpointing": True,
        "attention": "flash",
        "ranks": (1, 8),
        "num_workers": 4,
    },
    "swift_lora.yaml": {
        "stage": 2,
        "batch": (2, 1),  # 16 samples a step over 8 ranks
        "seq_len": 2048,
        "precision": "bf16",
        "num_workers": 1,
        "lora": 8,
    },
    "trl_sft.yaml": {
        "stage": 2,
        "batch": (2, 4),
        "seq_len": 4096,
        "precision": "bf16",  # trl's default
        "checkpointing": True,
        "sequences": "packed",
        "optim": "paged_adamw_8bit",
        "lora": 16,
    },
    "training_arguments.json": {
        "stage": 3,
        "batch": (4, 2),
        "seq_len": 2048,
        "precision": "bf16",
        "checkpointing": True,
        "attention": "flash",
        "optim": "adafactor",
    },
    "run_clm.sh": {
        "stage": 3,
        "batch": (4, 2),
        "seq_len": 2048,
        "precision": "bf16",
        "checkpointing": True,
        "ranks": (1, 8),
    },
    "finetune.sbatch": {
        "stage": 3,
        "batch": (1, 4),
        "seq_len": 4096,
        "precision": "bf16",
        "checkpointing": True,
        "ranks": (4, 8),
        "zero_init": True,
        "host": 1500 * GIB,
    },
}


def read(name, **flags):
    path = OTHERS / name
    says_ranks = "ranks" in MEANT.get(name, {})
    flags = {"gpu": "h100-80gb", **({} if says_ranks else {"gpus_per_node": 8}), **flags}
    return job.read(str(path), Flags(**flags))


@pytest.mark.slow
@pytest.mark.parametrize("name", MEANT)
def test_an_example_needs_no_flag_but_the_cluster(name):
    """And says of every value where it stands."""
    found, meant = read(name), MEANT[name]
    sizes = sizing.size(found)
    assert sizes.verdict is Verdict.FITS
    keys = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert tuple(sizes.settings[key].value for key in keys) == meant["batch"]
    assert sizes.settings["zero_optimization.stage"].value == meant["stage"]
    assert sizes.settings["bf16.enabled"].value is (meant["precision"] == "bf16")
    for field in (
        "seq_len",
        "precision",
        "attention",
        "kernels",
        "sequences",
        "optim",
        "num_workers",
    ):
        if field in meant:
            assert getattr(found.workload, field) == meant[field], field
    assert found.workload.checkpointing is True
    if "checkpointing_by" in meant:
        assert found.workload.checkpointing_how.by == meant["checkpointing_by"]
    assert (found.model.adapter.r if found.model.adapter else None) == meant.get("lora")
    quantization = found.model.quantization
    assert (quantization.bits if quantization else None) == meant.get("bits")
    if "ranks" in meant:
        assert (found.cluster.nodes, found.cluster.gpus_per_node) == meant["ranks"]
    assert found.cluster.host_memory == meant.get("host")
    assert found.workload.zero_init == meant.get("zero_init")
    assert not sizes.findings or all(f.severity.value != "error" for f in sizes.findings)


@pytest.mark.parametrize("name", sorted(MEANT))
def test_every_value_has_its_line(name):
    """The line that an origin names holds the value, or the flag of it."""
    found = read(name)
    for origins in (found.workload.origins, {"model": found.origins["model"]}):
        for field, origin in origins.items():
            if origin.startswith(("default of", "--")):
                continue
            path, _, line = origin.rpartition(":")
            text = Path(path).read_text().splitlines()[int(line) - 1]
            assert text.strip(), (field, origin)
            value = getattr(found.workload, field, None)
            if isinstance(value, int) and value is not True:
                assert str(value) in text or "$" in text, (field, text)


def test_accelerate_makes_a_config_of_its_fields():
    found = read("accelerate_zero3.yaml", model="llama-3-8b", gpus_per_node=None)
    assert found.document.where("zero_optimization.stage").endswith("accelerate_zero3.yaml:10")
    assert (found.cluster.nodes, found.cluster.gpus_per_node) == (2, 8)
    assert found.workload.precision == "bf16"
    assert found.workload.zero_init is True
    named = read("accelerate_config_file.yaml", model="llama-3-8b", gpus_per_node=None)
    assert Path(named.document.source).name == "zero2_auto.json"
    assert [f.code for f in named.findings] == ["file-beside"]


def test_swift_accumulates_16_samples_over_all_ranks():
    assert read("swift_lora.yaml", gpus_per_node=2).workload.grad_accum == 4
    assert read("swift_lora.yaml", grad_accum=3).workload.grad_accum == 3
    assert {c["zero_optimization"]["stage"] for c in swift.PRESETS.values()} == {0, 1, 2, 3}


def test_a_flag_wins_over_another_tools_file():
    found = read("llama_factory_lora.yaml", seq_len=1024, model="gpt2", adapter="r=2")
    assert (found.workload.seq_len, found.workload.origins["seq_len"]) == (1024, "--seq-len")
    assert found.model.adapter.r == 2


LF = "model_name_or_path: gpt2\nfinetuning_type: full\ndeepspeed: {zero_optimization: {stage: 2}}\n"
AX = "base_model: gpt2\ndeepspeed: {zero_optimization: {stage: 2}}\n"
SW = "model: gpt2\ntuner_type: full\ndeepspeed: zero2\n"
AC = "distributed_type: DEEPSPEED\n"
TRL = "model_name_or_path: gpt2\nmax_length: 64\ndeepspeed: {zero_optimization: {stage: 2}}\n"


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        (LF, "seq_len", 2048),
        (LF, "micro_batch", 8),
        (LF, "precision", "fp32"),
        (LF + "disable_gradient_checkpointing: true", "checkpointing", False),
        (LF + "pure_bf16: true", "precision", "bf16"),
        (LF + "neat_packing: true", "sequences", "packed"),
        (LF + "flash_attn: disabled", "attention", "eager"),
        (LF + "flash_attn: auto", "attention", None),
        (AX, "seq_len", 512),
        (AX, "micro_batch", 1),
        (AX, "checkpointing", False),
        (AX, "precision", "bf16"),
        (AX + "fp16: true\nbf16: false", "precision", "fp16"),
        (AX + "bf16: false", "precision", "fp32"),
        (AX + "flash_attention: true", "attention", "flash"),
        (AX + "eager_attention: true", "attention", "eager"),
        (AX + "attn_implementation: flex_attention", "attention", "flash"),
        (AX + "xformers_attention: true", "attention", "flash"),
        (SW, "checkpointing", True),
        (SW, "precision", "bf16"),
        (SW + "torch_dtype: float16", "precision", "fp16"),
        (SW + "padding_free: true", "sequences", "packed"),
        (TRL, "precision", "bf16"),
        (TRL + "fp16: true", "precision", "fp16"),
        (TRL + "gradient_checkpointing: false", "checkpointing", False),
    ],
)
def test_a_tools_own_default_or_word(write, text, field, value):
    assert getattr(job.read(write(text)).workload, field) == value


def test_axolotls_checkpointing_is_reentrant_where_nothing_is_said(write):
    how = job.read(write(AX + "gradient_checkpointing: true")).workload.checkpointing_how
    assert how.by == REENTRANT
    offloaded = job.read(write(AX + "gradient_checkpointing: offload")).workload
    assert offloaded.checkpointing_how.offload


def test_llama_factory_freezes_all_but_the_last_layers(write):
    text = LF.replace("full", "freeze") + "freeze_trainable_layers: "
    spec = job.read(write(text + "3")).model
    trained = {t.name for t in spec.parameters if t.trainable}
    assert {name.split(".")[2] for name in trained} == {"9", "10", "11"}
    spec = job.read(write(text + "-1\nfreeze_trainable_modules: mlp")).model
    trained = {t.name for t in spec.parameters if t.trainable}
    assert all(name.startswith("transformer.h.0.mlp") for name in trained)
    assert trained


@pytest.mark.parametrize(
    "more", ["", "freeze_trainable_layers: 13", "freeze_trainable_modules: mlp"]
)
def test_what_llama_factory_freezes_stays_frozen_in_an_emitted_job(write, tmp_path, capsys, more):
    from zero_sizer import cli

    path, out = write(LF.replace("full", "freeze") + more), str(tmp_path / "chosen.yaml")
    path = write(Path(path).read_text().replace("gpt2", "llama-3.2-3b"))
    cluster = ["--gpus-per-node", "8", "--gpu", "a100-80gb", "--host-memory", "2TiB"]
    assert cli.main(["choose", path, *cluster, "--emit-job", out]) == 0
    before, after = (job.read(name).model for name in (path, out))
    assert len(before.freeze.patterns) < 20  # 28 layers, of which up to 27 are frozen in part
    trained = [[t.name for t in spec.parameters if t.trainable] for spec in (before, after)]
    assert trained[0] == trained[1] != []
    capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        (LF + "stage: dpo", Direction.COST),
        (LF + "use_badam: true", Direction.SAVE),
        (LF + "use_unsloth: true", Direction.SAVE),
        (SW + "freeze_parameters_ratio: 0.5", Direction.SAVE),
        (AX + "rl: dpo", Direction.COST),
        (AX + "optimizer: muon", Direction.EITHER),
        (AX + "unfrozen_parameters: [lm_head]", Direction.SAVE),
        (SW + "rlhf_type: grpo", Direction.COST),
        (TRL + "activation_offloading: true", Direction.SAVE),
    ],
)
def test_what_is_not_modelled_says_which_way_it_moves(write, text, direction):
    (found,) = [f for f in job.read(write(text)).findings if f.code == "tool-option-not-modelled"]
    assert found.direction is direction
    assert (found.line, Path(found.file).name) == (text.count("\n") + 1, "job.yaml")


@pytest.mark.parametrize(
    "text",
    [
        LF + "plot_loss: true\nsave_steps: 500\nper_device_eval_batch_size: 1\nlora_alpha: 16",
        AX + "wandb_project: x\nval_set_size: 0.05\neval_sample_packing: false",
        SW + "model_author: us\nsplit_dataset_ratio: 0.1\nsystem: hello",
        AC + "deepspeed_config: {zero_stage: 2}\nmain_process_port: 29500\nsame_network: true",
    ],
)
def test_keys_without_memory_are_silent(write, text):
    assert job.read(write(text), Flags(model="gpt2")).findings == ()


def test_a_misspelt_key_is_found(write):
    (found,) = job.read(write(LF + "per_device_train_batchsize: 4")).findings
    assert found.code == "unknown-key-of-tool"
    assert "per_device_train_batch_size" in found.remedy


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (LF + "cutoff_len: long", 4, "cutoff_len"),
        (LF + "bf16: maybe", 4, "bf16"),
        (LF + "bf16: true\nfp16: true", 5, "both on"),
        (LF + "flash_attn: fa9", 4, "none of"),
        (LF + "per_device_train_batch_size: 0", 4, "between 1"),
        (LF + "optim: adamw_8bitt", 4, "did you mean"),
        (LF.replace("full", "lora") + "lora_rank: -1", 2, "r:"),
        (LF.replace("full", "lora") + "lora_target: 7", 4, "list of names"),
        ("model_name_or_path: gpt2\ntemplate: x\ndeepspeed: no.json", 3, "no file"),
        ("model_name_or_path: gpt2\ntemplate: x\ndeepspeed: 3", 3, "deepspeed"),
        ("model_name_or_path: 7\ntemplate: x\ndeepspeed: {}", 1, "not a name"),
        ("model_name_or_path: gpt2\ntemplate: x", None, "names no DeepSpeed config"),
        ("template: x\nmodel_name_or_path:\ndeepspeed: {}", None, "names none"),
        (AX + "gradient_checkpointing_kwargs: 3", 3, "not a mapping"),
        (
            AX + "gradient_checkpointing: true\ngradient_checkpointing_kwargs: {every_n_layers: 0}",
            4,
            "whole number",
        ),
        (AC + "num_machines: 3\nnum_processes: 8", 3, "no multiple"),
        (AC + "deepspeed_config: 3", 2, "not a mapping"),
        (AC + "mixed_precision: int4", 2, "none of"),
    ],
)
def test_a_mistake_names_its_line(write, text, line, words):
    path = write(text)
    with pytest.raises(InputError) as caught:
        job.read(path)
    assert words in str(caught.value)
    assert caught.value.where == (f"{path}:{line}" if line else path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("actor_rollout_ref: {model: {path: x}}\ndata: {}\ntrainer: {}", "verl"),
        ("exp_manager: {}\ntrainer: {}\nmodel: {}", "NeMo"),
        ("tensor_model_parallel_size: 8", "Megatron"),
        ("pipe_parallel_size: 1\nzero_optimization: {}", "GPT-NeoX"),
        ("device_train_microbatch_size: 8\nmodel: {}", "LLM Foundry"),
        (
            "model: gpt2\nmodel_class: llm\ndist_config: {name: deepspeed, config_file: ds.json}\n"
            "output_dir: x",
            "LLaMA-Factory v1",
        ),
        ("distributed_type: FSDP\nnum_processes: 8", "FSDP"),
        (LF.replace("full", "oft"), "oft"),
        (AX + "adapter: mora", "mora"),
        (SW.replace("full", "boft"), "boft"),
        (LF.replace("full", "lora") + "quantization_bit: 3", "quantization_bit"),
    ],
)
def test_another_tools_file_is_refused_by_name(write, text, words):
    with pytest.raises(UnsupportedError, match=words) as caught:
        job.read(write(text), Flags(model="gpt2"))
    assert "\n" not in str(caught.value)


def test_training_arguments_are_no_deepspeed_config(write):
    text = '{"output_dir": "x", "per_device_train_batch_size": 4, "learning_rate": 1e-4}'
    with pytest.raises(InputError, match="names no DeepSpeed config"):
        job.read(write(text, "args.json"), Flags(model="gpt2"))


def test_a_file_without_a_config_is_chosen_for(write, tmp_path, capsys):
    """And the chosen job is one that ``check`` reads, in a folder of its own."""
    from zero_sizer import cli

    text = "\n".join(AX.splitlines()[:1]) + "\nadapter: qlora\nload_in_4bit: true\nlora_r: 8\n"
    text += "lora_target_linear: true\noptimizer: adamw_bnb_8bit\nsequence_len: 256\n"
    emitted = str(tmp_path / "chosen.yaml")
    cluster = ["--gpus-per-node", "2", "--gpu", "a100-40gb", "--host-memory", "64GiB"]
    assert cli.main(["choose", write(text), *cluster, "--emit-job", emitted]) == 0
    found = job.read(emitted)
    assert (found.model.adapter.r, found.model.quantization.bits) == (8, 4)
    assert (found.workload.optim, found.workload.seq_len) == ("adamw_bnb_8bit", 256)
    assert not found.document.has("optimizer")
    capsys.readouterr()


def test_ours_stays_ours(write):
    text = "model: gpt2\nadapter: r=4\ndeepspeed: {}\nworkload: {optim: sgd}"
    found = job.read(write(text))
    assert (found.said.tool, found.workload.optim) == ("", "sgd")
