"""Files that ``choose`` emits, taken to those who read them, and to the simulated engine.

Each draw is a model, cards with all of their memory or a part, hosts, a batch or none, and a
config that a user may have: none, one with "auto", one with much of its own. ``choose`` writes
its config, its job, the TrainingArguments and all four launch files. Then:

* every key of the user's config is kept, or named among the changes;
* DeepSpeed's parser takes the config (``DeepSpeedConfig``), an "auto" filled in by transformers;
* the Trainer finds no mismatch between its arguments and the config;
* accelerate's loader, the parsers of ``deepspeed`` and ``torchrun``, and bash take the launch
  files;
* ``check`` and ``guard`` answer of the job what ``choose`` said;
* the real engine runs it on simulated GPUs, cut to a few blocks, and stays within the interval that
  ``check`` gives for what was cut.

python benchmarks/emitted.py --draws 30 --seed 1     # prints the table
python benchmarks/emitted.py --draws 30 --write      # and puts it into benchmarks/results.md
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from cold_start import replace_section
from emitted_draws import GPUS, MODELS, Draw, draws

from zero_sizer import cli, sizing
from zero_sizer.config.document import from_mapping
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, read
from zero_sizer.questions import guard

LAYERS = 2
LAUNCHERS = {"deepspeed": "run.sh", "torchrun": "torch.sh", "accelerate": "a.yaml", "slurm": "s.sb"}


def require(holds: bool, about: object = "") -> None:
    """Stop this comparison where it does not hold."""
    if not holds:
        raise AssertionError(str(about))


@dataclass
class Emitted:
    """The files of one draw.

    Attributes:
        folder: where they are.
        answer: JSON of ``choose``.
        before: the user's config, leaf by leaf.
    """

    folder: Path
    answer: Mapping[str, Any]
    before: Mapping[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The emitted DeepSpeed config."""
        return dict(json.loads((self.folder / "ds.json").read_text()))

    @property
    def job(self) -> Job:
        """The emitted job."""
        return read(str(self.folder / "job.yaml"))


def emit(draw: Draw, folder: Path) -> Emitted | None:
    """Everything that is emitted of a draw; None where nothing fits, which leaves no file."""
    words = ["choose"]
    if draw.config is not None:
        (folder / "user.json").write_text(json.dumps(draw.config))
        words.append(str(folder / "user.json"))
    (folder / "train.py").write_text("")
    words += [*draw.flags, "--emit", str(folder / "ds.json"), "--emit-job"]
    words += [str(folder / "job.yaml"), "--emit-args", str(folder / "args.json")]
    for how, name in LAUNCHERS.items():
        words += ["--emit-launch", f"{how}={folder / name}"]
    code, text = _asked([*words, "--format", "json"])
    before = dict(from_mapping(draw.config or {}).leaves())
    if code == 1:
        left = [name for name in os.listdir(folder) if name not in ("user.json", "train.py")]
        if left:
            raise AssertionError(f"nothing fits, and {left} are written")
        return None
    if code not in (0, 3):
        raise AssertionError(f"choose ended with {code}: {text[-300:]}")
    return Emitted(folder, json.loads(text), before)


def _asked(words: list[str]) -> tuple[int, str]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(words)
    return code, out.getvalue() or err.getvalue()


def keeps_the_config(found: Emitted) -> None:
    """Each key that differs from the user's is named, with a reason, and none but those."""
    after = dict(from_mapping(found.config).leaves())
    before = found.before
    different = {k for k in {*before, *after} if before.get(k) != after.get(k)}
    named = {edit["key"]: edit for edit in found.answer["changes"]}
    require(set(named) == different, sorted(different ^ set(named)))
    require(all(edit["why"] for edit in named.values()))


def passes_deepspeed(found: Emitted) -> None:
    """``DeepSpeedConfig`` takes it, filled in by transformers where it says "auto"."""
    from deepspeed.runtime.config import DeepSpeedConfig

    values = found.config
    if "auto" in dict(from_mapping(values).leaves()).values():
        values = _trainer_config(found).config
    parsed = DeepSpeedConfig(values)
    plan = found.answer["chosen"]
    require(parsed.zero_optimization_stage == plan["stage"])
    require(parsed.train_micro_batch_size_per_gpu == plan["micro_batch"])
    require(parsed.gradient_accumulation_steps == plan["gradient_accumulation_steps"])


def passes_the_trainer(found: Emitted) -> None:
    """No value of the arguments contradicts the config, and none is unknown."""
    config = _trainer_config(found)
    require(config.mismatches == [], config.mismatches)
    require(not [k for k, v in from_mapping(config.config).leaves() if v == "auto"])


def _trainer_config(found: Emitted) -> Any:
    """The config as the Trainer hands it to DeepSpeed."""
    from types import SimpleNamespace

    from transformers import HfArgumentParser, TrainingArguments

    values = json.loads((found.folder / "args.json").read_text())
    require(values["deepspeed"] == str(found.folder / "ds.json"))
    known = {"use_cpu": True, "output_dir": str(found.folder / "out")}
    (arguments,) = HfArgumentParser(TrainingArguments).parse_dict({**values, **known})
    config = arguments.hf_deepspeed_config
    hidden = (found.job.model.arch.hidden or 1024,)
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=hidden[0]), named_parameters=list)
    config.trainer_config_finalize(arguments, model, 1000)
    return config


def passes_accelerate(found: Emitted) -> None:
    """Accelerate's loader takes the YAML, and its plugin the config that it names."""
    from accelerate.commands.config.config_args import load_config_from_file

    loaded = load_config_from_file(str(found.folder / LAUNCHERS["accelerate"]))
    plan = found.answer["chosen"]
    require(loaded.num_processes == plan["world_size"])
    require(loaded.deepspeed_config["deepspeed_config_file"] == str(found.folder / "ds.json"))
    require(loaded.deepspeed_config["zero3_init_flag"] is (plan["stage"] == 3))


def passes_the_launchers(found: Emitted) -> None:
    """The parsers of ``deepspeed`` and ``torchrun``, and bash for the batch script."""
    from deepspeed.launcher.runner import parse_args
    from torch.distributed.run import get_args_parser

    plan = found.answer["chosen"]
    each = plan["world_size"] // plan["nodes"]
    line = _line_of(found.folder / LAUNCHERS["deepspeed"])
    require(parse_args(line[1:]).num_gpus == each)
    line = _line_of(found.folder / LAUNCHERS["torchrun"])
    require(get_args_parser().parse_args(line[1:]).nproc_per_node == str(each))
    done = subprocess.run(["bash", "-n", found.folder / LAUNCHERS["slurm"]], check=False)
    require(done.returncode == 0)
    require(f"#SBATCH --nodes={plan['nodes']}\n" in (found.folder / LAUNCHERS["slurm"]).read_text())


def _line_of(path: Path) -> list[str]:
    (line,) = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return shlex.split(line)


def goes_back_into_check(found: Emitted) -> None:
    """``check`` and ``guard`` answer of the job what ``choose`` said of its plan."""
    code, text = _asked(["check", str(found.folder / "job.yaml"), "--format", "json"])
    checked = json.loads(text)
    require(checked["verdict"] == found.answer["verdict"], (checked["verdict"], checked["reasons"]))
    require(code == (0 if checked["verdict"] == "fits" else 3))
    for device, size in found.answer["chosen"]["peak_bytes"].items():
        require(checked["devices"][device]["peak_bytes"] == size, device)
    require(yaml.safe_load((found.folder / "job.yaml").read_text())["deepspeed"] == found.config)
    line = _line_of(found.folder / LAUNCHERS["torchrun"])
    guarded = guard.sized(guard.read(line, Flags(), str(found.folder / "job.yaml")))
    require(guarded.sizing.verdict.value == checked["verdict"])


FILES: Mapping[str, Callable[[Emitted], None]] = {
    "keeps the user's config": keeps_the_config,
    "DeepSpeedConfig": passes_deepspeed,
    "TrainingArguments, HfTrainerDeepSpeedConfig": passes_the_trainer,
    "accelerate": passes_accelerate,
    "deepspeed, torchrun, bash": passes_the_launchers,
    "check and guard": goes_back_into_check,
}


def simulated(found: Emitted, nvme_path: str) -> tuple[float, bool]:
    """The engine's peak beside the prediction for the same few blocks.

    Returns:
        the peak over what is predicted, less 1; and whether it is within the interval, with what
        others usually take of a GPU beside it.
    """
    from zero_sizer.dryrun.simulated import run_requests
    from zero_sizer.dryrun.simulated.parent import request_of

    job = cut_job(found.job, LAYERS)
    (recording,) = run_requests([request_of(job, rank=0, steps=2, nvme_path=nvme_path)])
    if isinstance(recording, Exception):
        raise recording
    sized = sizing.size(job)
    if sized.plan is None:
        raise AssertionError("no plan")
    need, there = sized.needs[Device.GPU], sized.capacities[Device.GPU]
    peak = recording.first.peak()["gpu"]
    peak = recording.first.peak()["gpu"]
    is_within = need.low <= peak + there.outside.expected <= need.high
    return peak / sized.peaks[Device.GPU].num_bytes - 1, is_within


@dataclass
class Outcome:
    """Comparisons that held, by kind, and those that did not."""

    held: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    strategies: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0
    nothing: int = 0

    def note(self, kind: str, draw: Draw, test: Callable[[], object]) -> None:
        """Count one comparison; what it raises is kept."""
        self.asked[kind] += 1
        try:
            test()
            self.held[kind] += 1
        except Exception as error:  # of any of the packages: it is what is looked for
            words = f"{type(error).__name__}: {str(error)[:300]}"
            self.failures.append(f"{kind}: {draw.line} ({_kind_of(draw)}): {words}")


def _kind_of(draw: Draw) -> str:
    if draw.config is None:
        return "no config"
    return f"a config of {len(dict(from_mapping(draw.config).leaves()))} keys"


def examine(draw: Draw, outcome: Outcome, *, runs: bool = True) -> None:
    """One draw: emit it, and take each file to its reader."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)  # the script of a launcher's line is looked for
        try:
            found = emit(draw, Path(name))
            if found is None:
                outcome.nothing += 1
                return
            outcome.strategies[found.answer["chosen"]["strategy"]] += 1
            for kind, test in FILES.items():
                outcome.note(kind, draw, partial(test, found))
            if runs:
                outcome.note(ENGINE, draw, partial(_run, found, name, outcome))
        except AssertionError as error:
            outcome.failures.append(f"choose: {draw.line} ({_kind_of(draw)}): {error}")
        finally:
            os.chdir(here)


ENGINE = "the engine, simulated"


def _run(found: Emitted, folder: str, outcome: Outcome) -> None:
    error, is_within = simulated(found, folder)
    outcome.worst = max(outcome.worst, abs(error))
    require(is_within, f"{error:+.2%} of the prediction")


SAYS = {
    "keeps the user's config": "each key that differs is named with its reason, and no other",
    "DeepSpeedConfig": "takes the config, and reads stage, micro batch and accumulation from it",
    "TrainingArguments, HfTrainerDeepSpeedConfig": 'no mismatch, and no "auto" left',
    "accelerate": "its loader takes the YAML, with ranks, config and zero3_init_flag",
    "deepspeed, torchrun, bash": "their parsers take the lines and the batch script",
    "check and guard": "of the emitted job: verdict and peaks of `choose`",
    ENGINE: f"cut to {LAYERS} blocks, within the interval that `check` gives for what was cut",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    outcome = Outcome()
    for number, draw in zip(range(options.draws), draws(options.seed), strict=False):
        before = len(outcome.failures)
        examine(draw, outcome)
        print(f"{number}: {draw.line}", flush=True)
        for line in outcome.failures[before:]:
            print(f"   {line}", flush=True)
    section = render(outcome, options)
    print(section)
    if options.write:
        replace_section(section)
    return int(bool(outcome.failures))


def render(outcome: Outcome, options: argparse.Namespace) -> str:
    rows = [
        f"| {kind} | {about} | {outcome.held[kind]} of {outcome.asked[kind]} |"
        for kind, about in SAYS.items()
    ]
    chosen = ", ".join(f"{name} {count}" for name, count in outcome.strategies.most_common())
    return "\n".join(
        [
            "## Emitted files",
            "",
            f"{options.draws} draws with seed {options.seed} ({len(MODELS)} models of 0.1B to 13B, "
            f"{len(GPUS)} cards, 1 to 16 GPUs, with and without adapter, NVMe, a train batch and a "
            "config of the user's), by `benchmarks/emitted.py`. Of "
            f"{outcome.nothing} nothing fits, and nothing is written. Chosen: {chosen}.",
            "",
            "| reader | what it must do | holds |",
            "|---|---|---|",
            *rows,
            "",
            f"The engine's peak was at most {outcome.worst:.2%} off the prediction.",
            "",
            *(f"* {line}" for line in outcome.failures),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
