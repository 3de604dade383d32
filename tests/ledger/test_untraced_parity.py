"""Jobs with frozen parts that nobody traced: the ledger beside the real engine."""

import json
import random
from dataclasses import replace

import pytest
from support.plans import make_job
from support.simulated_jobs import HOST, config_of

from zero_sizer import models
from zero_sizer.crosscheck import compare
from zero_sizer.findings import Direction, Severity
from zero_sizer.models.changes import freeze, lora, lora_config, quantization, records
from zero_sizer.sizing import size

pytest.importorskip("deepspeed")
pytest.importorskip("peft")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

_COMMON = {
    "hidden_size": 512,
    "intermediate_size": 1360,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4000,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
FAMILIES = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu"},
    "qwen3": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_act": "silu",
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "num_key_value_heads": 8,
    },
}
ATTENTION = {"gpt_neox": "query_key_value"}
TARGETS = ("q_proj+v_proj", "all-linear", "q_proj+k_proj+v_proj+o_proj", "gate_proj+down_proj")
ZEROS = (
    {"stage": 3},
    {"stage": 3, "offload_optimizer": HOST},
    {"stage": 3, "offload_optimizer": HOST, "offload_param": HOST},
    {"stage": 2},
)
FROZEN = (
    (("model.embed_tokens", "model.layers.[01]"), {"stage": 3}),
    (("*.mlp.*",), {"stage": 3}),
    (("*.mlp.*", "lm_head"), {"stage": 1}),
)
LIMIT = 0.02


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    found = {}
    for family, fields in FAMILIES.items():
        folder = tmp_path_factory.mktemp(family)
        (folder / "config.json").write_text(json.dumps({**_COMMON, **fields}))
        found[family] = models.load(str(folder))
    return found


def _job(spec, zero, ranks, batch, **workload):
    stated = {"seq_len": 512, "micro_batch": batch, "attention": "flash", **workload}
    config = config_of(zero, train_micro_batch_size_per_gpu=batch)
    return make_job(config, spec, ranks, **stated)


def _drawn(bases, count):
    """Adapters as people write them, on jobs as people run them."""
    draw = random.Random(20261130)
    for _ in range(count):
        family = draw.choice(list(FAMILIES))
        targets = ATTENTION.get(family, draw.choice(TARGETS))
        text = f"r={draw.choice((8, 16, 64))},targets={targets}"
        text += draw.choice(("", ",dropout=0.05"))
        zero = draw.choice(ZEROS)
        workload = {"checkpointing": draw.random() < 0.6}
        if zero["stage"] == 3:
            workload["zero_init"] = draw.random() < 0.6
        ranks = draw.choice((2, 4, 8))
        spec = lora.with_adapter(bases[family], lora_config.read(text, "--adapter"))
        job = _job(spec, zero, ranks, draw.choice((1, 2, 4)), **workload)
        yield f"{family} {text} {zero} {ranks} {workload}", job, draw.randrange(ranks)


def _packed_and_saved(bases):
    llama = bases["llama"]
    for how, zero in (("nf4,double", 2), ("int8", 1), ("nf4,storage=bfloat16", 3)):
        spec = quantization.with_quantization(llama, quantization.read(how, "--quantization"))
        spec = lora.with_adapter(spec, lora_config.read("r=8,targets=all-linear", "--adapter"))
        yield f"{how} {zero}", _job(spec, {"stage": zero}, 4, 2, checkpointing=True), 0
    saved = lora_config.read("r=8,targets=all-linear,save=lm_head+embed_tokens", "--adapter")
    spec = lora.with_adapter(bases["qwen3"], saved)
    yield "saved", _job(spec, {"stage": 3}, 2, 2, checkpointing=True, zero_init=False), 1
    for patterns, zero in FROZEN:
        spec = freeze.with_freeze(llama, records.Freeze(patterns, "--freeze"))
        yield f"frozen {patterns}", _job(spec, zero, 4, 2, checkpointing=False), 1


def _highest(job, recording):
    rows = compare.against_recording(job, recording).rows
    peaks = [row for row in rows if row.quantity == "peak" and row.device == "gpu"]
    return max(row.predicted for row in peaks), max(row.witnessed for row in peaks)


def test_what_nobody_traced_is_as_high_as_in_the_engine(bases):
    from zero_sizer.dryrun.simulated import parent

    jobs = [*_drawn(bases, 8), *_packed_and_saved(bases)]
    requests = [parent.request_of(job, rank=rank, steps=2) for _, job, rank in jobs]
    wrong = []
    for (name, job, _), recording in zip(jobs, parent.run_requests(requests), strict=True):
        assert not isinstance(recording, Exception), (name, recording)
        assert "activations-of-the-base" in [f.code for f in size(job).findings], name
        predicted, witnessed = _highest(job, recording)
        if abs(predicted / witnessed - 1) > LIMIT:
            wrong.append((name, predicted, witnessed, predicted / witnessed - 1))
    assert wrong == []


def test_dora_runs_at_stage_3_where_peft_gathers_what_it_reads(bases):
    """Two real ranks over gloo run it as well, whatever is kept of what was gathered."""
    from zero_sizer.dryrun.simulated import parent

    dora = lora_config.read("r=8,targets=q_proj+v_proj,use_dora=true", "--adapter")
    spec = lora.with_adapter(bases["llama"], dora)
    job = _job(spec, {"stage": 3}, 2, 1, checkpointing=False, zero_init=True)
    (recording,) = parent.run_requests([parent.request_of(job, rank=0, steps=2)])
    assert not isinstance(recording, Exception)
    found = size(job).findings
    assert [f for f in found if f.severity is Severity.ERROR] == []
    # what DoRA computes beside LoRA is not counted, and said to cost
    assert [f.direction for f in found if f.code == "activations-of-the-base"] == [Direction.COST]
    predicted, witnessed = _highest(job, recording)
    assert 0.9 * witnessed < predicted <= witnessed
    built = replace(job, model=replace(spec, origin="factory nets:make"))
    assert "dora-under-zero-init" in [f.code for f in size(built).findings]
