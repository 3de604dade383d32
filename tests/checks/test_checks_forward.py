"""What a model's forward refuses: sequences beyond a table of positions, attention it lacks."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import make_job

from zero_sizer import checks, models
from zero_sizer.config.document import from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware import catalog
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.ledger.verdict import is_doubt
from zero_sizer.models import attention
from zero_sizer.models.layouts.families import FAMILIES
from zero_sizer.models.positions import longest_sequence
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.plan.resolve import plan_of
from zero_sizer.sizing import Job, size

BF16 = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}}
FP32 = {"train_micro_batch_size_per_gpu": 1}
FP16 = {**FP32, "fp16": {"enabled": True}}


def found(
    model: str, config: dict[str, object] = BF16, gpu: str = "", **workload: object
) -> dict[str, Finding]:
    """Code -> finding."""
    spec, stated = models.load(model), Workload(**workload)
    card = catalog.find(gpu) if gpu else None
    cluster = Cluster(nodes=1, gpus_per_node=1, gpu=card, origins={})
    document = from_mapping(config)
    settings, _ = resolve(document, stated, world_size=1, model=spec)
    context = checks.Context(
        document=document, settings=settings, cluster=cluster, workload=stated, model=spec
    )
    return {finding.code: finding for finding in checks.run(context)}


@pytest.mark.parametrize(
    ("model", "longest"), [("gpt2", 1024), ("bert-base", 512), ("opt-125m", 2048)]
)
def test_a_table_of_positions_ends(model, longest):
    """The configs' n_positions and max_position_embeddings; OPT's table has two rows more."""
    assert longest_sequence(models.load(model)) == longest
    assert "sequence-too-long" not in found(model, seq_len=longest)
    finding = found(model, seq_len=longest + 1)["sequence-too-long"]
    assert finding.severity is Severity.ERROR
    assert finding.key == "--seq-len"
    assert f"at most {longest:,}" in finding.remedy
    assert ("n_positions" if model == "gpt2" else "max_position_embeddings") in finding.message


@pytest.mark.parametrize("model", ["llama-2-7b", "pythia-1.4b", "bloom-560m", "t5-3b", "phi-2"])
def test_other_positions_have_no_end(model):
    assert "sequence-too-long" not in found(model, seq_len=10**6)


def test_rotary_positions_run_beyond_what_was_trained():
    told = found("llama-2-7b", seq_len=4097)["sequence-beyond-training"]
    assert told.severity is Severity.NOTE
    assert "4,096" in told.message
    for model, seq_len in (("llama-2-7b", 4096), ("gpt2", 4097), ("bloom-560m", 10**6)):
        assert "sequence-beyond-training" not in found(model, seq_len=seq_len)


def test_a_table_of_unknown_use_is_a_warning(monkeypatch):
    own = ModelSpec(name="own", origin="factory net:build", parameters=(Tensor("wpe.w", (64, 8)),))
    monkeypatch.setattr(models, "load", lambda _: own)
    assert found("own", seq_len=65)["sequence-too-long"].severity is Severity.WARNING


def test_a_job_file_is_named():
    told = found("gpt2", seq_len=2048, origins={"seq_len": "job.yaml:7"})["sequence-too-long"]
    assert "job.yaml:7 says 2,048 tokens" in told.message


def test_positions_after_the_padding_token():
    """RoBERTa's 514 rows begin at pad_token_id + 1 and serve 512 tokens."""
    table = Tensor(
        "roberta.embeddings.position_embeddings.weight", (514, 8), None, True, "Embedding"
    )
    spec = ModelSpec(
        name="roberta",
        origin="test",
        parameters=(table,),
        arch=Architecture(family="roberta", max_positions=514),
        hf_config={"pad_token_id": 1, "max_position_embeddings": 514},
    )
    assert longest_sequence(spec) == 512
    assert longest_sequence(replace(spec, hf_config={})) == 514


def test_an_assumed_sequence_fits_into_the_table():
    spec = replace(models.load("gpt2"), arch=Architecture(family="gpt2", hidden=768))
    document = from_mapping(BF16)
    settings, _ = resolve(document, Workload(), world_size=1, model=spec)
    job = Job(
        document=document,
        model=spec,
        cluster=Cluster(nodes=1, gpus_per_node=1, origins={}),
        workload=Workload(),
        origins={},
    )
    plan = plan_of(job, settings).plan
    assert plan is not None
    assert plan.seq_len == 1024


def test_families_lack_what_their_classes_lack():
    """Read off transformers' source, so that nothing heavy is imported."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        pytest.skip("transformers is not installed")
    flags = {attention.FLASH: "_supports_flash_attn", attention.SDPA: "_supports_sdpa"}
    for family in {*FAMILIES, *attention.LACKS}:
        name = {"openai-gpt": "openai"}.get(family, family).removesuffix("_text").replace("-", "_")
        source = Path(spec.origin).parent / "models" / name / f"modeling_{name}.py"
        text = source.read_text(encoding="utf-8")
        lacking = {
            kind
            for kind, flag in flags.items()
            if not re.search(rf"^    {flag} = True", text, re.MULTILINE)
        }
        assert lacking == set(attention.LACKS.get(family, ())), family


@pytest.mark.parametrize("asked", ["sdpa", "flash", "eager", None])
def test_attention_that_a_class_lacks_is_counted_as_what_runs(asked):
    """Bytes and seconds alike: 28 bytes a score are moved, whatever was asked for."""
    for name in ("bloom-560m", "gpt-j-6b"):
        usual = "flash" if (name, asked) == ("gpt-j-6b", "flash") else "eager"
        assert plan_for(models.load(name), attention=asked).attention == usual
    others = replace(models.load("bloom-560m"), hf_config={})  # another package's own class
    assert plan_for(others, attention="flash").attention == "flash"


def plan_for(spec: ModelSpec, **workload: object):
    document, cluster = from_mapping(BF16), Cluster(nodes=1, gpus_per_node=1, origins={})
    stated = Workload(**workload)
    settings, _ = resolve(document, stated, world_size=1, model=spec)
    job = Job(document=document, model=spec, cluster=cluster, workload=stated, origins={})
    return plan_of(job, settings).plan


@pytest.mark.parametrize(
    ("kernel", "gpu", "code"),
    [
        ("flash-3", "a100-80gb", "flash-kernel-gpu"),
        ("flash-3", "rtx-4090", "flash-kernel-gpu"),
        ("flash-3", "b200-180gb", "flash-kernel-gpu"),
        ("flash-3", "mi300x", "flash-kernel-gpu"),
        ("flash-3", "h100-80gb", None),
        ("flash-3", "h20-96gb", None),
        ("flash-2", "a100-80gb", None),
        ("flash-2", "t4", "flash-gpu"),
        ("flash-1", "t4", None),
        ("flash-1", "v100-32gb", "flash-gpu"),
    ],
)
def test_each_generation_of_flash_attention_has_its_gpus(kernel, gpu, code):
    told = found("llama-2-7b", FP16, gpu, attention="flash", attention_kernel=kernel)
    assert {c for c in told if c.startswith("flash-")} == ({code} if code else set())
    assert code is None or gpu in told[code].message


def test_a_kernel_of_flash_attention_says_nothing_of_sdpa():
    told = found("llama-2-7b", attention="sdpa", attention_kernel="flash-2")
    assert told["flash-kernel-unused"].severity is Severity.WARNING
    for said, kernel in (("sdpa", None), ("flash", "flash-3")):  # nor of the seconds
        job = make_job(
            FP16, models.load("llama-2-7b"), 8, attention=said, attention_kernel="flash-3"
        )
        assert size(job).plan.attention_kernel == kernel


@pytest.mark.parametrize("model", ["t5-3b", "bloom-560m"])
def test_flash_that_a_class_lacks(model):
    finding = found(model, attention="flash")["attention-not-there"]
    assert finding.severity is Severity.ERROR
    assert finding.remedy == f"say --attention {'sdpa' if model == 't5-3b' else 'eager'}"
    assert "attention-not-there" not in found(model, attention="eager")


def test_sdpa_that_a_class_lacks_is_eager():
    assert found("gemma-2-2b", attention="sdpa")["attention-not-there"].severity is Severity.WARNING
    assert "attention-not-there" not in found("gemma-2-2b", attention="flash")
    assert "attention-not-there" not in found("gemma-2-2b")


def test_flash_takes_16_bits():
    assert found("gpt2", FP32, attention="flash")["flash-fp32"].severity is Severity.ERROR
    for config in (BF16, FP16, {**FP32, "torch_autocast": {"enabled": True}}):
        assert "flash-fp32" not in found("gpt2", config, attention="flash")
    assert "flash-fp32" not in found("gpt2", FP32, attention="sdpa")


def test_flash_where_the_script_may_load_16_bits():
    """smollm2's config.json names bfloat16, in which transformers 5 loads it: nothing is cast."""
    at_3 = {**FP32, "zero_optimization": {"stage": 3}}
    told = found("smollm2-135m", FP32, attention="flash")["flash-fp32"]
    assert told.severity is Severity.WARNING
    assert found("smollm2-135m", at_3, attention="flash")["flash-fp32"].severity is Severity.ERROR


def test_flash_takes_heads_of_256():
    """Gemma's are just as wide."""
    numbers = "params=1e9,layers=2,hidden=4096,heads={},vocab=100"
    assert "flash-head-size" in found(numbers.format(8), attention="flash")
    assert "flash-head-size" not in found(numbers.format(8), attention="sdpa")
    assert "flash-head-size" not in found("gemma-7b", attention="flash")


@pytest.mark.parametrize(
    ("gpu", "refused"), [("t4", True), ("v100-16gb", True), ("a100-40gb", False), ("mi300x", False)]
)
def test_flash_needs_ampere(gpu, refused):
    told = found("llama-2-7b", FP16, gpu, attention="flash")
    assert ("flash-gpu" in told) == refused
    if refused:
        assert told["flash-gpu"].severity is Severity.ERROR
        assert gpu in told["flash-gpu"].message


def test_sdpa_in_bf16_keeps_its_scores_on_older_gpus():
    """So nothing fits there for certain; fp16 has a fused kernel, eager's scores are counted."""
    autocast = {**FP32, "torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
    for config, how in ((BF16, "sdpa"), (BF16, None), (autocast, "sdpa")):
        told = found("gpt2", config, "v100-16gb", attention=how)["sdpa-not-modelled"]
        assert is_doubt(told)
    for config, gpu, how in (
        (FP16, "v100-16gb", "sdpa"),
        (BF16, "v100-16gb", "eager"),
        (BF16, "a100-40gb", "sdpa"),
        (BF16, "mi300x", "sdpa"),
    ):
        assert "sdpa-not-modelled" not in found("gpt2", config, gpu, attention=how)
    assert "sdpa-not-modelled" not in found("gemma-2-2b", BF16, "t4")  # eager by default


def test_16_bits_on_older_gpus():
    """accelerator/cuda_accelerator.py: fp16 from 7.0 on; bf16 wherever torch can emulate it."""
    assert found("gpt2", FP16, "p100-16gb")["fp16-gpu"].severity is Severity.ERROR
    assert found("gpt2", BF16, "t4")["bf16-gpu"].severity is Severity.WARNING
    for config, gpu in ((FP16, "v100-16gb"), (BF16, "l4"), (BF16, "mi250x"), (FP32, "p100-16gb")):
        assert not {"fp16-gpu", "bf16-gpu"} & found("gpt2", config, gpu).keys()
