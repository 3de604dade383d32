"""Adapters under autocast, in 8 bits and in first blocks: the ledger beside the real engine."""

import json

import pytest
from support.plans import make_job
from support.simulated_jobs import ADAMW, HOST

from zero_sizer import models
from zero_sizer.config.workload import NON_REENTRANT, REENTRANT, Checkpointing
from zero_sizer.crosscheck import compare
from zero_sizer.models.changes import lora, lora_config, quantization

pytest.importorskip("deepspeed")
pytest.importorskip("peft")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ABOVE, BELOW = 0.01, -0.005
_SIZES = {
    "hidden_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 4000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
FAMILIES = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "intermediate_size": 1360,
    },
    "llama in fp16": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "intermediate_size": 8192,  # a product's weights are most of what it takes
        "dtype": "float16",
    },
    "deep llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "intermediate_size": 1360,
        "num_hidden_layers": 12,
        "vocab_size": 500,
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "intermediate_size": 2048,
    },
    "phi": {
        "model_type": "phi",
        "architectures": ["PhiForCausalLM"],
        "intermediate_size": 2048,
        "hidden_act": "gelu_new",
        "partial_rotary_factor": 0.5,
        "resid_pdrop": 0.1,
    },
    "phi3": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "intermediate_size": 1360,
        "pad_token_id": 0,
        "sliding_window": 2047,
    },
    "opt": {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "ffn_dim": 2048,
        "word_embed_proj_dim": 512,
        "tie_word_embeddings": True,
    },
    "falcon": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
        "tie_word_embeddings": True,
    },
}
AUTOCAST = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
BF16 = {"bf16": {"enabled": True}}
ALL, PAIR, FUSED = "r=8,targets=all-linear", "r=8,targets=q_proj+v_proj", "targets=query_key_value"
MLP = "r=8,targets=gate_proj+up_proj+down_proj"
STAGE_3 = {
    "stage": 3,
    "stage3_param_persistence_threshold": 1000,
    "stage3_prefetch_bucket_size": 0,
}
PREFETCHED = {**STAGE_3, "stage3_prefetch_bucket_size": 10**6}  # less than an embedding has
# base, packed, adapter, precision, zero_optimization, micro steps, workload
JOBS = {
    "autocast, frozen layers of ZeRO-3": ("llama", "", ALL, AUTOCAST, STAGE_3, 1, {}),
    "autocast, recomputed": ("llama", "", ALL, AUTOCAST, STAGE_3, 1, {"checkpointing": True}),
    "autocast, torch's layers": ("llama", "", f"{ALL},dropout=0.05", AUTOCAST, {"stage": 1}, 1, {}),
    "autocast, biases, recomputed": (
        *("gpt_neox", "", FUSED, AUTOCAST, {"stage": 2}, 1),
        {"checkpointing": True, "attention": "eager"},
    ),
    "autocast, before the first step": ("llama", "", PAIR, AUTOCAST, PREFETCHED, 2, {}),
    "autocast, views": ("falcon", "", ALL, AUTOCAST, STAGE_3, 1, {}),
    "equal blocks": (
        *("opt", "", PAIR, {"fp16": {"enabled": True}}),
        *({**PREFETCHED, "offload_optimizer": HOST, "offload_param": HOST}, 1, {}),
    ),
    "4 bits, packed in fp16": ("llama in fp16", "nf4", ALL, BF16, {"stage": 2}, 1, {"seq_len": 64}),
    "8 bits": ("llama", "int8", PAIR, BF16, PREFETCHED, 1, {"attention": "eager"}),
    "8 bits, parallel": ("gpt_neox", "int8", FUSED, BF16, {"stage": 2}, 1, {"attention": "eager"}),
    "MLP beside attention, Falcon's": ("falcon", "", FUSED, BF16, {"stage": 2}, 1, {}),
    "MLP beside attention, NeoX's": ("gpt_neox", "", FUSED, BF16, {"stage": 2}, 1, {}),
    "MLP beside attention, Phi's": ("phi", "", PAIR, BF16, STAGE_3, 1, {"attention": "sdpa"}),
    "autocast, MLP beside attention": ("phi", "", PAIR, AUTOCAST, {"stage": 2}, 1, {}),
    "autocast, views beside attention": ("falcon", "", FUSED, AUTOCAST, STAGE_3, 1, {}),
    "embeddings' output, a leaf": ("opt", "", PAIR, BF16, {"stage": 2}, 1, {"checkpointing": True}),
    "heads put together again": ("phi3", "", "targets=qkv_proj", BF16, {"stage": 2}, 1, {}),
    "nothing before the first MLP": ("llama", "", MLP, BF16, {"stage": 2}, 1, {}),
    "8 bits, kept to the end": (
        *("phi3", "int8", "targets=qkv_proj", BF16, {"stage": 2, "reduce_bucket_size": 10**8}),
        *(1, {"attention": "eager"}),
    ),
    "8 bits, recomputed": ("llama", "int8", ALL, BF16, {"stage": 2}, 1, {"checkpointing": True}),
}


def _job(folder, family, packed, adapter, precision, zero, micro_steps, workload):
    (folder / "config.json").write_text(json.dumps({**_SIZES, **FAMILIES[family]}))
    spec = models.load(str(folder))
    if packed:
        spec = quantization.with_quantization(spec, quantization.read(packed, "--quantization"))
    spec = lora.with_adapter(spec, lora_config.read(adapter, "--adapter"))
    config = {
        **precision,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": micro_steps,
        "optimizer": ADAMW,
        "zero_optimization": {"reduce_bucket_size": 10**5, **zero},
    }
    stated = {"seq_len": 512, "micro_batch": 2, "attention": "flash", "checkpointing": False}
    stated["zero_init"] = zero["stage"] == 3
    return make_job(config, spec, 2, **{**stated, **workload})


def _highest(job, recording):
    rows = compare.against_recording(job, recording).rows
    peaks = [row for row in rows if row.quantity == "peak" and row.device == "gpu"]
    return max(row.predicted for row in peaks), max(recording.ranks[0].peak()["gpu"], 1)


def test_adapters_need_what_the_engine_needs(tmp_path):
    from zero_sizer.dryrun.simulated import parent

    jobs = {name: _job(tmp_path, *fields) for name, fields in JOBS.items()}
    requests = [parent.request_of(job, rank=0, steps=2) for job in jobs.values()]
    wrong = []
    for (name, job), recording in zip(jobs.items(), parent.run_requests(requests), strict=True):
        assert not isinstance(recording, Exception), (name, recording)
        predicted, witnessed = _highest(job, recording)
        if not BELOW <= predicted / witnessed - 1 <= ABOVE:
            wrong.append((name, predicted, witnessed, predicted / witnessed - 1))
    assert wrong == []


@pytest.mark.parametrize("packed", ["nf4,double,storage=bfloat16", ""])
def test_whoever_asks_for_recomputation_is_lent_frozen_weights(tmp_path, packed):
    """A reentrant checkpoint's block is, any other's last module, for its own backward only."""
    from zero_sizer.dryrun.simulated import parent

    zero = {**STAGE_3, "stage3_max_live_parameters": 10**5, "stage3_max_reuse_distance": 10**5}
    jobs = []
    for by in (REENTRANT, NON_REENTRANT):
        how = {"checkpointing": True, "checkpointing_how": Checkpointing(by=by)}
        stated = (zero, 1, {**how, "seq_len": 256})
        jobs.append(_job(tmp_path, "deep llama", packed, ALL, BF16, *stated))
    requests = [parent.request_of(job, rank=0, steps=2) for job in jobs]
    for job, recording in zip(jobs, parent.run_requests(requests), strict=True):
        rows = compare.against_recording(job, recording).rows
        peaks = [row for row in rows if row.quantity == "peak" and row.device == "gpu"]
        assert [row for row in peaks if not -0.002 <= row.error <= -BELOW] == []
