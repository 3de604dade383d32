"""Every optimizer that DeepSpeed builds: the ledger against the simulated engine.

Model states agree to the byte after init and after a step, the peaks of both within 1 %.
"""

import parity
import pytest
from support.engine_parity import differences
from support.plans import make_job
from support.simulated_jobs import HOST, tiny_llama

pytestmark = pytest.mark.slow

TORCHS = {"torch_adam": True}
MOMENTUM = {"momentum": 0.9}
DECAY = {"weight_decay": 0.1}
PRECISIONS = {
    "bf16 states": {
        "bf16": {
            "enabled": True,
            "bf16_master_weights_and_grads": True,
            "bf16_optimizer_states": True,
        }
    },
    "bf16 master": {"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}},
    "fp16 master": {"fp16": {"enabled": True, "fp16_master_weights_and_grads": True}},
    "fp16 with bf16 states": {
        "fp16": {"enabled": True},
        "bf16": {
            "enabled": False,
            "bf16_master_weights_and_grads": True,
            "bf16_optimizer_states": True,
        },
    },
    "fp32": {},
}
# optimizer, its arguments, stage, precision, more of zero_optimization
GRID = (
    ("AdamW", TORCHS, 0, "bf16", {}),
    ("Adam", {**TORCHS, "adam_w_mode": False, **DECAY}, 2, "bf16", {"offload_optimizer": HOST}),
    ("AdamW", {**TORCHS, "foreach": False}, 0, "fp16", {}),
    ("AdamW", {**TORCHS, "fused": True, "amsgrad": True}, 3, "fp32", {}),
    ("Lamb", {}, 0, "fp16", {}),
    ("Lion", {}, 1, "fp32", {"offload_optimizer": HOST}),
    ("Adagrad", {}, 0, "bf16", {}),
    ("Adagrad", {}, 1, "bf16", {}),
    ("Adagrad", {}, 3, "fp32", {}),
    ("SGD", {**MOMENTUM, **DECAY}, 0, "fp16", {}),
    ("RMSprop", {**MOMENTUM, "centered": True}, 2, "fp32", {}),
    ("NAdam", DECAY, 3, "bf16", {"offload_optimizer": HOST}),
    ("RAdam", {}, 1, "fp16", {}),
    ("Adamax", {}, 3, "bf16", {}),
    ("Adadelta", {}, 2, "bf16", {}),
    ("ASGD", {}, 0, "fp32", {}),
    ("Rprop", {}, 1, "fp32", {}),
    ("Adafactor", {}, 0, "bf16", {}),
    (None, {}, 2, "bf16", {}),  # the Trainer's
    ("Muon", MOMENTUM, 1, "bf16", {}),
    ("Muon", MOMENTUM, 2, "bf16", {"offload_optimizer": HOST}),
    ("Muon", MOMENTUM, 3, "bf16", {"reduce_scatter": False}),
    ("AdamW", {}, 1, "bf16 states", {}),
    ("AdamW", {**TORCHS, "foreach": False, "amsgrad": True}, 3, "bf16 states", {}),
    ("Lamb", {}, 2, "bf16 states", {}),
    ("Lion", {}, 3, "fp16 with bf16 states", {}),
    ("Adagrad", {}, 3, "bf16 states", {}),
    ("Adafactor", {}, 2, "bf16 states", {}),
    ("Muon", MOMENTUM, 1, "bf16 states", {}),
    ("AdamW", {}, 3, "bf16 states", {"offload_optimizer": HOST}),
    ("AdamW", {"fp32_optimizer_states": False}, 2, "bf16 master", {"offload_optimizer": HOST}),
    ("AdamW", {}, 1, "fp16 master", {"offload_optimizer": HOST}),
)
WIDE = {"hidden_size": 256, "intermediate_size": 640, "vocab_size": 4000, "num_hidden_layers": 2}


def case(spec, name, params, stage, precision, zero):
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 10**5, **zero},
    }
    if name is not None:
        config["optimizer"] = {"type": name, "params": {"lr": 1e-4, **params}}
    config |= PRECISIONS.get(precision, {precision: {"enabled": True}})
    workload = {"seq_len": 16, "zero_init": stage == 3, "attention": "eager"}
    return parity.Case(
        f"{name} {params} stage {stage} {precision} {zero}", make_job(config, spec, 4, **workload)
    )


def test_states_to_the_byte_and_peaks_of_init_and_step(tmp_path):
    spec = tiny_llama(tmp_path, **WIDE)  # tensors that blocks of 512 bytes leave alone
    cases = [case(spec, *row) for row in GRID]
    assert list(differences(cases, above=2**12)) == []
