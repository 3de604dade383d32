"""``zero-sizer dryrun``: run the real engine for a few steps and record what lives when."""

import argparse
import importlib
import inspect
import sys
from typing import Any

from zero_sizer import stated
from zero_sizer.cli import options
from zero_sizer.cli.progress import Progress
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.files import require_writable
from zero_sizer.job import Job
from zero_sizer.witnesses.recording import Recording
from zero_sizer.witnesses.simulated.outputs import Outputs

HOWS = ("simulated", "solo", "launched")
_FILES = ("trace", "snapshot")
_RUN_OPTIONS = ("rank", "ranks", "layers", "steps", "timeout", *_FILES)
_DEFAULTS = {"ranks": 2, "steps": 2}
# A script decides these itself; what stays is the cluster, --rank, --steps and the files.
_NOT_FOR_SCRIPTS = (
    *(
        "model",
        "adapter",
        "quantization",
        "gpu_memory",
        "nvme",
        "hostfile",
        "seq_len",
        "micro_batch",
        "grad_accum",
    ),
    *(
        "checkpointing",
        "checkpointing_how",
        "attention",
        "sequences",
        "loss",
        "precision",
        "zero_init",
        "ranks",
        "layers",
        "timeout",
    ),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.usage = "%(prog)s --how HOW [options] (CONFIG | -- SCRIPT.py [ARGS])"
    parser.epilog = "After --: a training script and its own arguments, run unchanged (simulated)."
    options.add_job_options(parser, needs_config=False)
    options.add_format_option(parser)
    parser.add_argument("--how", choices=HOWS, required=True)
    group = add_run_options(parser)
    group.add_argument("--rank", type=rank, help="simulated, solo: global rank to be (0)")
    group.add_argument("--trace", metavar="FILE", help="simulated: every allocation and free")
    group.add_argument(
        "--snapshot", metavar="FILE", help="simulated: a PyTorch memory snapshot of the GPU"
    )
    parser.add_argument("--output", metavar="FILE", help="write the recording (JSON) here")
    parser.set_defaults(run=run)


def add_run_options(
    parser: argparse.ArgumentParser, *, ranks_help: str = "launched: processes (2)"
) -> Any:
    """What every dry run can be told; returns the group of options."""
    group = parser.add_argument_group("dry run")
    group.add_argument("--ranks", type=count, help=ranks_help)
    group.add_argument("--layers", type=count, help="keep only this many layers of the model")
    group.add_argument("--steps", type=count, help="optimizer steps (2)")
    group.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="launched, solo: then stop (600)"
    )
    return group


def count(text: str) -> int:
    """A whole number from 1 to a million."""
    if not text.isdecimal() or not 0 < int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def rank(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a rank: a whole number from 0 on")
    return int(text)


def seconds(text: str) -> float:
    """More than 0 seconds, at most a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 86400 seconds")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run, write the recording, show it."""
    for name in ("output", *_FILES):
        require_writable(getattr(arguments, name), f"--{name}")
    if arguments.script is not None:
        recording = _of_script(arguments)
    elif arguments.config is None:
        raise InputError("nothing to run", remedy="give CONFIG, or a script after --")
    else:
        refuse_unused(arguments, [arguments.how])
        _refuse_cluster(arguments)
        recording = record(arguments, arguments.how, options.job_from(arguments))
    if arguments.output:
        recording.write(arguments.output)
    if arguments.format == "json":
        import json

        print(json.dumps(recording.to_json(), indent=1))
    else:
        _show(arguments, recording)
    return 0


def _show(arguments: argparse.Namespace, recording: Recording) -> None:
    from zero_sizer.report import recording as report

    report.show(recording)
    for what in ("recording", "trace", "snapshot"):
        path = arguments.output if what == "recording" else getattr(arguments, what)
        if path:
            print(f"{what} written to {path}")


def record(arguments: argparse.Namespace, how: str, job: Job) -> Recording:
    """The recording of one dry run of a job; options that this kind lacks are left out.

    Raises:
        UnsupportedError: this kind of dry run is not there.
        WitnessError: the engine failed.
    """
    runner = _runner(how)
    accepted = inspect.signature(runner).parameters
    settings = {**_DEFAULTS, **_given(arguments), "outputs": _outputs(arguments)}
    settings = {name: value for name, value in settings.items() if name in accepted}
    with Progress(f"{how}: starting the engine", None, patience=0) as progress:
        progress.at(0, None, f"{how}: starting the engine")
        if "progress" in accepted:
            settings["progress"] = progress.at
        recording: Recording = runner(job, **settings)
    return recording


def refuse_unused(
    arguments: argparse.Namespace, hows: list[str], *, also: tuple[str, ...] = ()
) -> None:
    """Refuse a dry-run option that none of these dry runs has and that is not in ``also``.

    Raises:
        InputError: such an option was given.
    """
    accepted = {name for how in hows for name in inspect.signature(_runner(how)).parameters}
    accepted.update(_FILES if "outputs" in accepted else (), also)
    for name in _given(arguments):
        if name not in accepted:
            remedy = "--nodes and --gpus-per-node say how many ranks" if name == "ranks" else ""
            if not hows:
                remedy = "add --with simulated, or leave it out"
                raise InputError(
                    "does not apply without a dry run", remedy=remedy, where=f"--{name}"
                )
            raise InputError(
                f"does not apply to --how {', '.join(hows)}", where=f"--{name}", remedy=remedy
            )


def _refuse_cluster(arguments: argparse.Namespace) -> None:
    """A launched run is of this machine, on so many ranks as ``--ranks`` says."""
    for name in ("nodes", "gpus_per_node", "hostfile") if arguments.how == "launched" else ():
        if getattr(arguments, name) is not None:
            raise InputError(
                "does not apply to --how launched, which runs on this machine",
                remedy="--ranks says how many processes",
                where="--" + name.replace("_", "-"),
            )


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Option -> value of those that were given."""
    values = {name: getattr(arguments, name, None) for name in _RUN_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def _outputs(arguments: argparse.Namespace) -> Outputs:
    files = {name: getattr(arguments, name, None) for name in _FILES}
    return Outputs(**files)


def _of_script(arguments: argparse.Namespace) -> Recording:
    if arguments.config is not None:
        raise InputError("either CONFIG or a script after --, not both", where=arguments.config)
    if arguments.how != "simulated":
        raise UnsupportedError(f"a script runs with --how simulated, not --how {arguments.how}")
    if not arguments.script:
        raise InputError("no script after --", remedy="write -- train.py ARGS")
    for name in _NOT_FOR_SCRIPTS:
        if getattr(arguments, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise InputError("does not apply to a script, which decides it itself", where=flag)
    from zero_sizer.witnesses.simulated.script import ScriptRequest, run_script

    memory = arguments.host_memory
    request = ScriptRequest(
        command=arguments.script,
        nodes=arguments.nodes or 1,
        gpus_per_node=arguments.gpus_per_node or 1,
        gpu=arguments.gpu,
        host_memory=None if memory is None else stated.HOST_MEMORY.parse(memory, "--host-memory"),
        rank=arguments.rank or 0,
        steps=arguments.steps or _DEFAULTS["steps"],
    )
    sys.stderr.flush()
    return run_script(request, _outputs(arguments))


def _runner(how: str) -> Any:
    try:
        module = importlib.import_module(f"zero_sizer.witnesses.{how}")
        return module.run
    except (ImportError, AttributeError):
        raise UnsupportedError(f"--how {how} is not available in this version") from None
