"""The key table: current with the installed DeepSpeed, and useful for misspelt keys."""

import subprocess
import sys
from pathlib import Path

import pytest

from zero_sizer.config import keys

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_deepspeed_keys.py"


@pytest.mark.slow
def test_the_committed_table_is_what_the_script_writes_now() -> None:
    pytest.importorskip("deepspeed")
    run = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert run.returncode == 0, f"run {SCRIPT.name} and commit the table\n{run.stderr[-2000:]}"


@pytest.mark.slow
def test_every_field_of_every_config_model_is_in_the_table() -> None:
    """An independent count: the models are reached from their classes, not through the parser."""
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.offload_config import DeepSpeedZeroOffloadOptimizerConfig

    for section, model in (
        ("zero_optimization", DeepSpeedZeroConfig),
        ("zero_optimization.offload_optimizer", DeepSpeedZeroOffloadOptimizerConfig),
        ("fp16", DeepSpeedFP16Config),
        ("bf16", DeepSpeedBF16Config),
    ):
        names = {field.alias or name for name, field in model.model_fields.items()}
        known = {keys.join(section, name) for name in names}
        assert known <= {*keys.table().keys, *keys.table().sections}, section


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("zero_optimisation", "zero_optimization"),
        ("zero_optimization.offload_optimiser", "zero_optimization.offload_optimizer"),
        ("zero_optimization.reduce_bucket_sise", "zero_optimization.reduce_bucket_size"),
        ("zero-optimization", "zero_optimization"),
        ("BF16", "bf16"),
        ("train_micro_batch_size", "train_micro_batch_size_per_gpu"),
        ("gradient_accumulation_step", "gradient_accumulation_steps"),
        ("stage", "zero_optimization.stage"),
        ("offload_optimizer", "zero_optimization.offload_optimizer"),
        ("overlap_comm", "zero_optimization.overlap_comm"),
        ("zero_optimization.gradient_clipping", "gradient_clipping"),
        ("zero_optimization.train_batch_size", "train_batch_size"),
        ("max_grad_norm", "gradient_clipping"),
        ("my_own_note", ""),
        ("model_parallel_size", ""),
        ("hidden_size", ""),
        ("wandb_project_of_mine", ""),
    ],
)
def test_did_you_mean(written: str, meant: str) -> None:
    assert keys.did_you_mean(written) == meant


def test_sections_say_what_happens_to_unknown_keys() -> None:
    sections = keys.table().sections
    assert sections[""].unknown == "ignored"
    assert sections["zero_optimization"].unknown == "forbidden"
    assert sections["optimizer.params"].unknown == "kept"
    assert sections["bfloat16"].alias_of == "bf16"
