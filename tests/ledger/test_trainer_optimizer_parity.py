"""Optimizers that the Trainer brings: the ledger against the simulated engine.

Model states agree to the byte after init and after a step, the peaks of both within 1 %; what
DeepSpeed cannot step ends as the rule says.
"""

from importlib.util import find_spec

import parity
import pytest
from support.engine_parity import differences
from support.plans import make_job
from support.simulated_jobs import HOST, tiny_llama

from zero_sizer import sizing
from zero_sizer.errors import ZeroSizerError

pytestmark = pytest.mark.slow

WIDE = {"hidden_size": 256, "intermediate_size": 640, "vocab_size": 4000, "num_hidden_layers": 2}
OWN = {"zero_force_ds_cpu_optimizer": False}
# optim, stage, precision, more of zero_optimization, more of the config
GRID = (
    ("adamw_torch", 2, "bf16", {}, {}),
    ("adamw_bnb_8bit", 0, "bf16", {}, {}),
    ("lion_8bit", 3, "bf16", {}, {}),
    ("adafactor", 1, "bf16", {}, {}),
    ("adafactor", 0, "bf16", {}, {}),  # matrices are factored
    ("adafactor", 2, "bf16", {"offload_optimizer": HOST}, OWN),
    ("adamw_8bit", 3, "bf16", {"offload_optimizer": HOST}, {}),  # becomes DeepSpeedCPUAdam
    ("adagrad", 0, "bf16", {}, {}),
    ("rmsprop", 3, "fp32", {}, {}),
    ("schedule_free_adamw", 0, "fp32", {}, {}),
    ("ademamix", 3, "bf16", {}, {}),
    ("ademamix_8bit", 1, "bf16", {}, {}),
)
CASE_AND_PEAK = ("case", "device", "phase", "predicted", "simulated")
KEPT_APART = (("grokadamw", 1, "bf16", {}, {}), ("grokadamw", 3, "bf16", {}, {}))
"""States in the groups of parameters, which a recording does not tell from other memory."""
FAILS = (
    ("galore_adamw", 1, "IndexError"),
    ("apollo_adamw", 1, "IndexError"),
    ("adagrad", 2, "IndexError"),
    ("lomo", 1, "NotImplementedError"),
    ("lomo", 3, "AttributeError"),
    ("schedule_free_sgd", 2, "Exception"),
)
PACKAGES = {"bnb": "bitsandbytes", "8bit": "bitsandbytes", "lion": "bitsandbytes",
            "schedule": "schedulefree", "galore": "galore_torch", "lomo": "lomo_optim",
            "ademamix": "bitsandbytes", "grok": "grokadamw",
            "apollo": "apollo_torch"}  # fmt: skip


def is_installed(optim):
    return all(find_spec(p) is not None for part, p in PACKAGES.items() if part in optim)


def case(spec, optim, stage, precision, zero, more):
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 10**5, **zero},
        **({} if precision == "fp32" else {precision: {"enabled": True}}),
        **more,
    }
    workload = {"seq_len": 16, "zero_init": stage == 3, "attention": "eager", "optim": optim}
    return parity.Case(f"{optim} {stage} {precision}", make_job(config, spec, 4, **workload))


def test_states_to_the_byte_and_peaks_of_init_and_step(tmp_path):
    spec = tiny_llama(tmp_path, **WIDE)
    cases = [case(spec, *row) for row in GRID if is_installed(row[0])]
    assert list(differences(cases, above=2**15)) == []


def test_peaks_where_states_are_kept_apart(tmp_path):
    spec = tiny_llama(tmp_path, **WIDE)
    cases = [case(spec, *row) for row in KEPT_APART if is_installed(row[0])]
    found = [row for row in differences(cases, above=2**15) if len(row) == len(CASE_AND_PEAK)]
    assert found == []


def test_what_cannot_step_ends_as_the_rule_says(tmp_path):
    spec = tiny_llama(tmp_path, **WIDE)
    rows = [row for row in FAILS if is_installed(row[0])]
    cases = [case(spec, optim, stage, "bf16", {}, {}) for optim, stage, _ in rows]
    for (optim, stage, kind), one, found in zip(rows, cases, parity.run_batch(cases), strict=True):
        assert isinstance(found, ZeroSizerError), (optim, stage)
        assert kind in str(found), (optim, found)
        (said,) = [f for f in sizing.size(one.job).findings if f.code == "trainer-optimizer"]
        assert kind in said.message
