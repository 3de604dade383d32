"""``zero-sizer dryrun``: run the real engine for a few steps and record what lives when."""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, of_verdict
from zero_sizer.cli.output import require_output
from zero_sizer.cli.progress import Progress
from zero_sizer.config.workload import INFERENCE
from zero_sizer.dryrun.answer import StoppedRun, answer_of
from zero_sizer.dryrun.recording import Recording, merged
from zero_sizer.dryrun.simulated.outputs import Outputs
from zero_sizer.errors import EngineError, InputError, UnsupportedError, WitnessError
from zero_sizer.hardware import hostfile
from zero_sizer.hardware.assemble import DEFAULT
from zero_sizer.job import fields
from zero_sizer.job.read import Job
from zero_sizer.questions import stopped
from zero_sizer.report.formats import reporter
from zero_sizer.util.files import require_writable

if TYPE_CHECKING:
    from zero_sizer.dryrun.launched.hosts import Hosts

HOWS = ("simulated", "solo", "launched")
_FILES = ("trace", "snapshot")
_RUN_OPTIONS = ("rank", "ranks", "layers", "steps", "timeout", *_FILES)
_OF_SCRIPTS = ("generate_tokens", "debug")
_WORST = "worst"
_DEFAULTS = {"ranks": 2, "steps": 2}
_FOR_SCRIPTS = ("nodes", "gpus_per_node", "gpu", "host_memory", "allow_code")
# A script decides these itself; what stays is the cluster, --rank, --steps and the files.
_NOT_FOR_SCRIPTS = (
    *(option.name for option in fields.OPTIONS if option.name not in _FOR_SCRIPTS),
    *("checkpointing_how", "ranks", "layers", "timeout"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.epilog = (
        "After --: a training script and its own arguments, run unchanged (simulated); a launcher "
        "in front (deepspeed, torchrun, accelerate launch, srun) is read and never started."
    )
    options.add_job_options(
        parser, needs_config=False, leave_out=(fields.TRAINING_RUN, fields.GOAL)
    )
    parser.usage = "%(prog)s --how HOW [options] CONFIG|-- LINE"
    options.add_format_option(parser, "dryrun")
    parser.add_argument(
        "--how",
        choices=HOWS,
        required=True,
        help="on a GPU that is simulated, as one rank on a real one, or with all ranks",
    )
    group = add_run_options(parser)
    group.add_argument(
        "--rank",
        type=rank,
        help="simulated, solo: global rank to be (0); worst: simulate first, second and last",
    )
    group.add_argument("--trace", metavar="FILE", help="simulated: every allocation and free")
    group.add_argument(
        "--snapshot", metavar="FILE", help="simulated: a PyTorch memory snapshot of the GPU"
    )
    several = parser.add_argument_group("launched over the hosts of --hostfile")
    several.add_argument(
        "--rsh",
        metavar="COMMAND",
        help="runs a command on the host that follows (ssh): 'srun --overlap -N1 -n1 -w'",
    )
    several.add_argument(
        "--master",
        metavar="HOST[:PORT]",
        help="where the ranks meet (the first host's first address, a free port)",
    )
    script = parser.add_argument_group("after --")
    script.add_argument(
        "--generate-tokens",
        type=count,
        metavar="N",
        help="new tokens that every generate() of the script makes",
    )
    script.add_argument("--debug", action="store_true", help="a script's whole traceback")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the recording (JSON) here")
    parser.set_defaults(run=run)


def add_run_options(
    parser: argparse.ArgumentParser, *, ranks_help: str = "launched: processes (2)"
) -> Any:
    """Declares the options of every dry run; returns their group."""
    group = parser.add_argument_group("dry run")
    group.add_argument("--ranks", type=count, help=ranks_help)
    group.add_argument("--layers", type=count, help="keep only this many layers of the model")
    group.add_argument(
        "--steps", type=count, help="optimizer steps, or requests of ZeRO-Inference (2)"
    )
    group.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="launched, solo: then stop (600)"
    )
    return group


def count(text: str) -> int:
    """A whole number from 1 to a million."""
    if not text.isdecimal() or not 0 < int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def rank(text: str) -> int | str:
    """A whole number from 0 on, or ``worst``."""
    if text == _WORST:
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a rank: a whole number from 0 on, or worst"
        )
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
    """Run, write the recording, show it; the exit code says whether the run fits its devices.

    What DeepSpeed itself stops is an answer too: an error about the job. Where `check` finds one,
    that is the answer and nothing is run.
    """
    require_output(arguments.output, arguments.config)
    for name in _FILES:
        require_writable(getattr(arguments, name), f"--{name}")
    found = _of_job(arguments) if arguments.script is None else _of_script(arguments)
    if isinstance(found, StoppedRun):
        reporter("stopped", arguments.format)(found)
        return DOES_NOT_FIT
    recording = found
    if arguments.output:
        recording.write(arguments.output)
    answer = answer_of(recording)
    written = {"recording": arguments.output, **{n: getattr(arguments, n) for n in _FILES}}
    files = {what: path for what, path in written.items() if path}
    reporter("dryrun", arguments.format)(answer, files=files)
    return of_verdict(answer.verdict)


def _of_script(arguments: argparse.Namespace) -> Recording | StoppedRun:
    _refuse_hosts(arguments, "a script")
    try:
        return of_script(arguments)
    except WitnessError as error:
        answer = stopped.of_script(error, arguments.script[0])
        if answer is None:
            raise
        return answer


def _of_job(arguments: argparse.Namespace) -> Recording | StoppedRun:
    if arguments.config is None and arguments.task != INFERENCE:
        raise InputError("nothing to run", remedy="give CONFIG, or a script after --")
    refuse_unused(arguments, [arguments.how])
    _refuse_cluster(arguments)
    job, how = _where_it_runs(arguments, options.job_of_any_task(arguments)), arguments.how
    if job.workload.task == INFERENCE and how != "simulated":
        raise UnsupportedError(f"inference runs with --how simulated, not {how}")
    hosts = _hosts(arguments)
    invalid = stopped.before(how, job, arguments.layers)
    if invalid is not None:
        return invalid
    ranks = job.cluster.world_size
    try:
        return _of_ranks(arguments, ranks, lambda: record(arguments, how, job, hosts))
    except EngineError as error:
        return stopped.of_job(error, how, job, arguments.layers)


def _of_ranks(
    arguments: argparse.Namespace, world_size: int, run_one: Callable[[], Recording]
) -> Recording:
    """The recording of the rank that was asked for, or of several and the highest first."""
    if arguments.rank != _WORST:
        return run_one()
    if arguments.trace or arguments.snapshot:
        raise InputError("of one rank, not of --rank worst", where="--trace, --snapshot")
    found = []
    for number in sorted({0, min(1, world_size - 1), world_size - 1}):
        arguments.rank = number
        found.append(run_one())
    return merged(found)


def record(
    arguments: argparse.Namespace, how: str, job: Job, hosts: "Hosts | None" = None
) -> Recording:
    """The recording of one dry run of a job; options that this kind lacks are left out.

    Args:
        arguments: of the command line.
        how: the kind of dry run.
        job: as read.
        hosts: of a launched run; None: this machine.

    Raises:
        UnsupportedError: this kind of dry run is not there.
        WitnessError: the engine failed.
    """
    runner = _runner(how)
    accepted = inspect.signature(runner).parameters
    settings = {**_DEFAULTS, **_given(arguments), "outputs": _outputs(arguments)}
    settings["hosts"] = hosts
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
    for name in _OF_SCRIPTS:
        if getattr(arguments, name, None):
            flag = "--" + name.replace("_", "-")
            raise InputError("applies to a script after -- only", where=flag)
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
    """A launched run is of this machine and ``--ranks`` of it, or of the hosts of a hostfile."""
    if arguments.how != "launched" or arguments.hostfile is None:
        _refuse_hosts(arguments, "a run without --how launched and --hostfile")
    for name in ("nodes", "gpus_per_node") if arguments.how == "launched" else ():
        if getattr(arguments, name, None) is not None:
            raise InputError(
                "does not apply to --how launched, which runs on this machine or over --hostfile",
                remedy="--ranks says how many processes run here",
                where="--" + name.replace("_", "-"),
            )
    if arguments.how == "launched" and arguments.hostfile and arguments.ranks is not None:
        raise InputError("the slots of --hostfile say how many", where="--ranks")


def _where_it_runs(arguments: argparse.Namespace, job: Job) -> Job:
    """The job on the ranks of a launched run, where nobody says on how many the job itself is."""
    origins = job.cluster.origins
    is_stated = {origins.get("nodes"), origins.get("gpus_per_node")} != {DEFAULT}
    if arguments.how != "launched" or is_stated:
        return job
    return on_ranks(job, arguments.ranks or _DEFAULTS["ranks"])


def on_ranks(job: Job, ranks: int) -> Job:
    """The job on ``ranks`` GPUs of one node, as a launched run has it."""
    origins = {**job.cluster.origins, "nodes": "--ranks", "gpus_per_node": "--ranks"}
    cluster = replace(job.cluster, nodes=1, gpus_per_node=ranks, slots=(), origins=origins)
    return replace(job, cluster=cluster)


def _refuse_hosts(arguments: argparse.Namespace, what: str) -> None:
    for name in ("rsh", "master"):
        if getattr(arguments, name) is not None:
            raise InputError(f"does not apply to {what}", where=f"--{name}")


def _hosts(arguments: argparse.Namespace) -> "Hosts | None":
    """The hosts of a launched run; None: this machine. A job file's hostfile starts nothing."""
    if arguments.how != "launched" or arguments.hostfile is None:
        return None
    from zero_sizer.dryrun.launched.hosts import SSH, Hosts

    slots = hostfile.read(arguments.hostfile)
    return Hosts(slots=slots, rsh=arguments.rsh or SSH, master=arguments.master or "")


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Option -> value of those that were given."""
    values = {name: getattr(arguments, name, None) for name in _RUN_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def _outputs(arguments: argparse.Namespace) -> Outputs:
    files = {name: getattr(arguments, name, None) for name in _FILES}
    return Outputs(**files)


def of_script(arguments: argparse.Namespace) -> Recording:
    """The recording of a script after ``--``.

    Raises:
        ZeroSizerError: the line cannot be read, or the script failed.
    """
    if arguments.config is not None:
        raise InputError("either CONFIG or a script after --, not both", where=arguments.config)
    if arguments.how != "simulated":
        raise UnsupportedError(f"a script runs with --how simulated, not --how {arguments.how}")
    if not arguments.script:
        raise InputError("no script after --", remedy="write -- train.py ARGS")
    for name in _NOT_FOR_SCRIPTS:
        if getattr(arguments, name, None) is not None:
            flag = "--" + name.replace("_", "-")
            raise InputError("does not apply to a script, which decides it itself", where=flag)
    from zero_sizer import launchers
    from zero_sizer.dryrun.simulated.script import ScriptRequest, run_script

    memory = arguments.host_memory
    host_memory = None if memory is None else fields.HOST_MEMORY.parse(memory, "--host-memory")
    launch = launchers.read(arguments.script)
    nodes = _agreed(arguments.nodes, launch.nodes, "--nodes") or 1
    gpus = _agreed(arguments.gpus_per_node, launch.gpus_per_node, "--gpus-per-node") or 1
    request = ScriptRequest(
        command=launch.command,
        module=launch.module,
        nodes=nodes,
        gpus_per_node=gpus,
        gpu=arguments.gpu,
        host_memory=host_memory,
        steps=arguments.steps or _DEFAULTS["steps"],
        generate_tokens=arguments.generate_tokens,
    )
    sys.stderr.flush()

    def run_one() -> Recording:
        number = arguments.rank or 0
        found = launch.variables(rank=number, nodes=nodes, gpus_per_node=gpus)
        of_rank = replace(request, rank=number, environment=found)
        return run_script(of_rank, _outputs(arguments), debug=arguments.debug)

    return _of_ranks(arguments, nodes * gpus, run_one)


def _agreed(flag: int | None, line: int | None, name: str) -> int | None:
    """What the flag says, or the launcher line; both must say the same."""
    if flag is not None and line is not None and flag != line:
        raise InputError(
            f"{flag}, and the launcher line says {line}", remedy="leave one out", where=name
        )
    return line if flag is None else flag


def _runner(how: str) -> Any:
    try:
        module = importlib.import_module(f"zero_sizer.dryrun.{how}")
        return module.run
    except (ImportError, AttributeError):
        raise UnsupportedError(f"--how {how} is not available in this version") from None
