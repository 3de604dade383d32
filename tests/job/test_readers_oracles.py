"""What readers take for a tool's defaults, against the tools' own classes where installed."""

import json
import os
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.job.readers import accelerate, recognise, trainer
from zero_sizer.optimizers import trainer as optimizers
from zero_sizer.sizing import size

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]
OTHERS = Path(__file__).parents[2] / "deepspeed_configs" / "others"


def defaults(kind):
    return {f.name: f.default for f in fields(kind) if f.default is not MISSING}


@pytest.mark.parametrize("tool", [trainer.TRAINING_ARGUMENTS, trainer.TRL])
def test_defaults_are_the_classes(tool):
    pytest.importorskip("trl")
    from transformers import TrainingArguments
    from trl import ModelConfig, SFTConfig

    own = defaults(TrainingArguments)
    if tool is trainer.TRL:
        own |= defaults(ModelConfig) | defaults(SFTConfig)
    for fact in tool.facts:
        known = [key for key in fact.keys if key in own]
        if fact.default is not None:
            assert [own[key] for key in known[:1]] == [fact.default], fact
        elif known:
            assert own[known[0]] in (None, False), fact


def test_every_optim_is_known():
    pytest.importorskip("transformers")
    from transformers.training_args import OptimizerNames

    assert {str(name.value) for name in OptimizerNames} == optimizers.NAMES


@pytest.mark.parametrize("optim", sorted(optimizers.NAMES))
def test_every_optim_is_modelled_or_refused(optim, tmp_path):
    """In a file of TrainingArguments; ``adamw_torch_8bit`` is torchao's."""
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    values = {"output_dir": "x", "optim": optim, "deepspeed": str(tmp_path / "ds.json")}
    (tmp_path / "args.json").write_text(json.dumps({**values, "model_name_or_path": "gpt2"}))
    sizing = size(read(str(tmp_path / "args.json"), Flags(gpu="a100-80gb", seq_len=64)))
    codes = {finding.code for finding in sizing.findings}
    assert (sizing.plan is None) == ("optimizer-not-modelled" in codes)
    assert (sizing.plan is None) == (optim in optimizers.NOT_MODELLED)


@pytest.mark.parametrize("precision", [{}, {"fp16": True}, {"bf16": False}])
def test_trl_decides_on_precision_and_checkpointing(precision, tmp_path):
    pytest.importorskip("trl")
    from trl import SFTConfig

    own = SFTConfig(output_dir=str(tmp_path), use_cpu=True, **precision)
    text = json.dumps({"model_name_or_path": "gpt2", "max_length": 8, **precision})
    (tmp_path / "trl.json").write_text(text)
    said = recognise.read(str(tmp_path / "trl.json"))
    expected = "bf16" if own.bf16 else "fp16" if own.fp16 else "fp32"
    assert said.workload["precision"].value == expected
    assert said.workload["checkpointing"].value == own.gradient_checkpointing


FIELDS = [
    {},
    {"zero_stage": 3, "zero3_save_16bit_model": True, "gradient_accumulation_steps": 4},
    {"zero_stage": 2, "offload_optimizer_device": "cpu", "gradient_clipping": 1.0},
    {
        "zero_stage": 3,
        "offload_optimizer_device": "nvme",
        "offload_optimizer_nvme_path": "/nvme",
        "offload_param_device": "cpu",
    },
    {"zero_stage": 3, "offload_optimizer_device": "nvme", "offload_param_nvme_path": "none"},
]


@pytest.mark.parametrize("given", FIELDS)
def test_accelerates_config_is_the_plugins(given, tmp_path, monkeypatch):
    """The plugin reads the variables that ``accelerate launch`` sets of the file."""
    pytest.importorskip("accelerate")
    from accelerate.utils import DeepSpeedPlugin

    from zero_sizer.launchers import accelerate as launcher

    path = tmp_path / "acc.yaml"
    path.write_text(json.dumps({"distributed_type": "DEEPSPEED", "deepspeed_config": given}))
    launch = launcher.launch({"config_file": str(path)}, ["train.py"])
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)
    for name, value in launch.environment.items():
        monkeypatch.setenv(name, value)
    own = DeepSpeedPlugin(
        offload_optimizer_nvme_path=given.get("offload_optimizer_nvme_path"),
        offload_param_nvme_path=given.get("offload_param_nvme_path"),
    ).deepspeed_config
    ours = accelerate.read(recognise.document(str(path))).document.values
    assert _plain(ours) == _plain(own)


def _plain(node):
    """Without what is not stated, and without the printing that accelerate turns off."""
    if not isinstance(node, dict):
        return node
    kept = {k: _plain(v) for k, v in node.items() if k != "steps_per_print" and v is not None}
    return {k: v for k, v in kept.items() if v != {}}


def test_the_examples_parse_as_their_tools_read_them():
    """TrainingArguments of transformers' own parser."""
    pytest.importorskip("transformers")
    from transformers import HfArgumentParser, TrainingArguments

    text = json.loads((OTHERS / "training_arguments.json").read_text())
    known = {f.name for f in fields(TrainingArguments)}
    ours = {k: v for k, v in text.items() if k in known and k != "deepspeed"}
    (own,) = HfArgumentParser(TrainingArguments).parse_dict({**ours, "use_cpu": True})
    said = recognise.read(str(OTHERS / "training_arguments.json")).workload
    assert said["micro_batch"].value == own.per_device_train_batch_size
    assert said["grad_accum"].value == own.gradient_accumulation_steps
    assert said["optim"].value == own.optim
