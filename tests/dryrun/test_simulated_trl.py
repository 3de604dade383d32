"""trl's SFTTrainer and DPOTrainer, unchanged, as one rank of many; skipped without trl."""

import itertools
import json
from collections import defaultdict

import pytest
from support.plans import make_job
from support.script_runs import SCRIPTS, run_scripts
from support.simulated_jobs import AUTO, HOST, TINY_LLAMA

from zero_sizer import models
from zero_sizer.dryrun import to_job
from zero_sizer.dryrun.recording import read
from zero_sizer.ledger.moments import Phase
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import size
from zero_sizer.units import format_gib

pytest.importorskip("trl")
pytest.importorskip("datasets")
pytestmark = pytest.mark.slow

MODEL = {**TINY_LLAMA, "hidden_size": 256, "intermediate_size": 640}
WORDS = "the a cat dog runs sits what does do"
SFT = {
    "stage 2": {"stage": 2},
    "stage 3 offloaded": {"stage": 3, "offload_optimizer": HOST, "offload_param": HOST},
}
# accelerate calls the engine's step at the accumulation boundary only.
STEP = ["forward", "backward", "forward", "backward", "step"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with a config and a tokenizer; texts of 192 words and pairs of answers."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("trl")
    names = ["<pad>", "<s>", "</s>", "<unk>", *WORDS.split()]
    words = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(MODEL))
    chosen, rejected = "the cat runs " * 64, "a dog sits " * 32
    rows = {
        "texts.jsonl": {"text": chosen},
        "pairs.jsonl": {"prompt": "what does a cat do", "chosen": chosen, "rejected": rejected},
    }
    for name, row in rows.items():
        (folder / name).write_text("\n".join([json.dumps(row)] * 64))
    return folder


def _line(folder, zero, script, data, *more):
    config = {**AUTO, "zero_optimization": {"reduce_bucket_size": "auto", **zero}}
    file = folder / f"ds{len(list(folder.glob('ds*')))}.json"
    file.write_text(json.dumps(config))
    options = {
        "model": folder,
        "data": data,
        "deepspeed": file.name,
        "output_dir": "out",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_length": 128,
        "report_to": "none",
    }
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    launcher = ["torchrun", "--nnodes", "2", "--nproc_per_node", "4"]
    return [*launcher, str(SCRIPTS / script), *flags, *more]


@pytest.fixture(scope="module")
def ran(folder):
    """Name -> recording of each script."""
    lines = {
        name: _line(folder, zero, "trl_sft.py", "texts.jsonl", "--packing")
        for name, zero in SFT.items()
    }
    watch = ("--watch", "memory.json", "--max_steps", "2")
    lines["DPO"] = _line(folder, {"stage": 3}, "trl_dpo.py", "pairs.jsonl", *watch)
    trainers = ("trl.trainer.sft_trainer", "trl.trainer.dpo_trainer")
    return run_scripts(folder, lines, imports=("datasets", *trainers))


@pytest.mark.parametrize("name", SFT)
def test_sft_holds_the_model_states_that_the_ledger_predicts(folder, ran, name):
    recording, zero = ran[name], SFT[name]
    assert [phase.name for phase in recording.first.phases] == ["init", *STEP, *STEP]
    assert not list(folder.rglob("*.safetensors"))
    # What SFTConfig says where nobody does: bf16, checkpointing.
    config = {
        "bf16": {"enabled": True},
        "gradient_accumulation_steps": 2,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 1.0,
        "zero_optimization": {"reduce_bucket_size": 256 * 256, **zero},
    }
    spec = models.load(str(folder))
    job = make_job(config, spec, 8, seq_len=128, checkpointing=True, attention="sdpa")
    predicted = defaultdict(int)
    for row in size(job).allocations:
        if Phase.STEP in row.phases:
            predicted[row.category.value, row.device.value] += row.num_bytes
    last = recording.first.last("step")
    for key in itertools.product(("master_weights", "optimizer_states"), ("gpu", "host")):
        assert last.num_bytes(*key) == pytest.approx(predicted[key], abs=64)


def test_dpo_holds_a_second_model_and_counts_selections_at_their_most(folder, ran):
    recording = ran["DPO"]
    assert [phase.name for phase in recording.first.phases] == ["init", *STEP, *STEP]
    assert any("selection by a mask" in note for note in recording.notes)
    init = recording.first.phases[0]
    params = models.load(str(folder)).num_params
    # The engine's own, and the reference's in bf16, an eighth each.
    assert init.num_bytes(device="gpu") >= params // 8 * (2 + 4 + 2 + 2)
    (path,) = folder.glob("memory.rank*.json")
    watched = read(path)
    (said,) = [note for note in watched.notes if note.startswith("DPOTrainer")]
    kept = format_gib(params // 8 * 2)
    assert f"beside a reference model of {kept} on this rank: none of it is in" in said
    assert not [note for note in watched.notes if "prediction:" in note]  # no false alarm
    assert watched.prediction["gpu"]["low"] < watched.prediction["gpu"]["expected"]
    assert "high" not in watched.prediction["gpu"]
    assert size(to_job.job_of(watched)).verdict is Verdict.UNCERTAIN  # as it was said then
