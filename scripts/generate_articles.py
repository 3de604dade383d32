"""Writes ``docs/articles.md`` and ``docs/articles.zh.md``: what articles calculate, and what is so.

    python scripts/generate_articles.py

The text is in ``scripts/articles/``; every figure is what the command beside it says today. A line
``@run NAME`` becomes the command, ``@row NAME | RULE | WORDS`` a row of a table: the rule's
figure, the ledger's, and by how much the rule misses. ``{NAME.peak}`` is a figure of a run.
"""

import argparse
import re
import shlex
from functools import cache
from pathlib import Path

from zero_sizer.advise import inference_cards
from zero_sizer.cli import crosscheck, options
from zero_sizer.crosscheck import rules
from zero_sizer.crosscheck.rules.record import sample_bytes
from zero_sizer.hardware import catalog
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Category
from zero_sizer.ledger.moments import Moment
from zero_sizer.sizing import Sizing, size

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ROOT / "scripts" / "articles"
PAGES = {"en": ROOT / "docs" / "articles.md", "zh": ROOT / "docs" / "articles.zh.md"}

_CONFIGS = "deepspeed_configs/valid"
_TRAIN = "--gpus-per-node 1 --seq-len 2048 --attention flash"
_14B = "--task inference --model qwen2.5-14b --attention sdpa"
RUNS = {
    "plain7": f"{_CONFIGS}/zero0_fp16.json --model llama-2-7b {_TRAIN} --checkpointing",
    "fp32": f"{_CONFIGS}/zero0_torch_scheduler.json --model llama-2-7b --gpus-per-node 1 "
    "--seq-len 2048 --attention sdpa --checkpointing",
    "full14": f"{_CONFIGS}/zero1_bf16.json --model qwen2.5-14b {_TRAIN} --checkpointing",
    "lora14": f"{_CONFIGS}/zero1_bf16.json --model qwen2.5-14b {_TRAIN} --adapter r=16 "
    "--checkpointing",
    "lora14kept": f"{_CONFIGS}/zero1_bf16.json --model qwen2.5-14b {_TRAIN} --adapter r=16 "
    "--no-checkpointing",
    "qlora14": f"{_CONFIGS}/zero1_bf16.json --model qwen2.5-14b {_TRAIN} --adapter r=16 "
    "--checkpointing --quantization nf4,double",
    **{
        f"zero{stage}x{nodes * 8}": f"{_CONFIGS}/zero{stage}_bf16.json --model llama-2-7b "
        f"--nodes {nodes} --gpus-per-node 8 --seq-len 2048 --attention flash --checkpointing"
        for stage in (1, 2, 3)
        for nodes in (1, 8)
    },
    **{
        f"{name}{'re' if again else ''}": f"{_CONFIGS}/zero2_bf16.json --model {model} "
        f"--gpus-per-node 8 --seq-len {tokens} --attention {attention} "
        f"--{'' if again else 'no-'}checkpointing"
        for name, model, tokens, attention in (
            ("gpt2", "gpt2-xl", 1024, "eager"),
            ("llama", "llama-2-7b", 2048, "flash"),
            ("long", "llama-2-7b", 4096, "flash"),
        )
        for again in (False, True)
    },
    "w32": f"{_14B} --precision fp32 --prompt 1792 --new-tokens 256 --batch-size 1",
    "w16": f"{_14B} --precision fp16 --prompt 1792 --new-tokens 256 --batch-size 1",
    "w8": f"{_14B} --quantization int8 --prompt 1792 --new-tokens 256 --batch-size 1",
    "w4": f"{_14B} --quantization nf4,double --prompt 1792 --new-tokens 256 --batch-size 1",
    "short": f"{_14B} --precision fp16 --prompt 128 --new-tokens 16 --batch-size 1",
    "busy": f"{_14B} --precision fp16 --prompt 3840 --new-tokens 256 --batch-size 16",
    "mha": "--task inference --model llama-2-7b --attention sdpa --precision fp16 --prompt 3840 "
    "--new-tokens 256 --batch-size 16",
}
CARDS = ("a100-40gb", "rtx-3090", "rtx-4090", "rtx-4070-ti")
_GB = 10**9


def command(name: str) -> str:
    """What a reader types."""
    return f"zero-sizer crosscheck {RUNS[name]} --with rules"


@cache
def sized(name: str) -> Sizing:
    """The run's job, read as the command reads it."""
    parser = argparse.ArgumentParser()
    crosscheck.configure(parser)
    arguments = parser.parse_args([*shlex.split(RUNS[name]), "--with", "rules"])
    return size(options.job_of_any_task(arguments))


@cache
def _answers(name: str) -> dict[str, rules.Answer]:
    return {answer.rule.name: answer for answer in rules.answers(sized(name))}


def row(name: str, rule: str, words: str) -> str:
    """``| words | rule's GB | ledger's GB | miss |``."""
    found = _answers(name)[rule]
    ends = dict.fromkeys((found.low, found.high))
    said = "-".join(_gb(end) for end in ends)
    misses = "..".join(f"{(end - found.ledger) / found.ledger:+.0%}" for end in ends)
    return f"| {words} | {said} | {_gb(found.ledger)} | {misses} |"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / _GB:.1f}"


def figure(name: str, what: str) -> str:
    """A figure of a run."""
    if name == "carry":
        return _carried(what)
    if name == "sample":
        return f"{sample_bytes((512, 512, 512), int(what)) / 10**6:,.0f}"
    if what.startswith("less-"):  # of activations, beside another run
        mine, other = _activations(sized(name)), _activations(sized(what[5:]))
        return f"{1 - mine / other:.0%}"
    sizing = sized(name)
    plan = sizing.plan
    if plan is None:
        raise SystemExit(f"{name} cannot be planned")
    found = {
        "peak": lambda: _gb(sizing.peaks[Device.GPU].num_bytes),
        "activations": lambda: _gb(_activations(sizing)),
        "billions": lambda: f"{plan.model.num_params / 1e9:.2f}",
        "each": lambda: f"{_states(sizing) / plan.model.num_params:.1f}",
        "ratio": lambda: f"{sizing.peaks[Device.GPU].num_bytes / _weights(sizing):.2f}",
        "perbillion": lambda: f"{sizing.peaks[Device.GPU].num_bytes / plan.model.num_params:.1f}",
        "context": lambda: _range(sizing),
        "ids": lambda: f"{2 * 8 * plan.micro_batch * plan.seq_len / 1000:.0f}",
    }
    return found[what]()


def _range(sizing: Sizing) -> str:
    outside = sizing.capacities[Device.GPU].outside
    return f"{outside.low / _GB:.1f}-{outside.high / _GB:.1f} GB"


def _weights(sizing: Sizing) -> int:
    found = (a for a in sizing.allocations if a.category is Category.PARAMETERS)
    return sum(a.num_bytes for a in found if Moment.READY in a.moments)


def _states(sizing: Sizing) -> int:
    kinds = (
        *(Category.PARAMETERS, Category.MASTER_WEIGHTS),
        *(Category.GRADIENTS, Category.OPTIMIZER_STATES),
    )
    states = [a for a in sizing.allocations if a.category in kinds and a.device is Device.GPU]
    return max(
        sum(a.num_bytes for a in states if m in a.moments) for m in Moment if m is not Moment.LOADED
    )


def _activations(sizing: Sizing) -> int:
    found = [a for a in sizing.allocations if a.category is Category.ACTIVATIONS]
    return max(sum(a.num_bytes for a in found if m in a.moments) for m in Moment)


@cache
def _cards() -> dict[str, dict[str, str]]:
    rows = inference_cards.carriers(tuple(map(catalog.find, CARDS)), "qwen2.5-14b")
    return {
        gpu.name: {way: str(enough.gpus) if enough else "-" for way, enough in found.items()}
        for gpu, found in rows
    }


def _carried(gpu: str) -> str:
    return " | ".join(_cards()[gpu].values())


def page(language: str) -> str:
    """The text with its figures."""
    lines = []
    for line in (TEXTS / f"{language}.md").read_text("utf-8").splitlines():
        if line.startswith("@run "):
            names = line.removeprefix("@run ").split()
            lines += ["```console", *(f"$ {command(name)}" for name in names), "```"]
        elif line.startswith("@row "):
            lines.append(row(*(part.strip() for part in line.removeprefix("@row ").split("|"))))
        else:
            lines.append(re.sub(r"\{(\w+)\.([\w-]+)\}", lambda m: figure(m[1], m[2]), line))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes both pages."""
    for language, path in PAGES.items():
        path.write_text(page(language), "utf-8")
        print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
