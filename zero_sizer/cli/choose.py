"""``zero-sizer choose``: the best stage, offload, batch and buffers on a given cluster."""

import argparse
import json

from zero_sizer.advise.choose import Choice, Options, choose
from zero_sizer.advise.config import default_config, usual_precision
from zero_sizer.advise.strategy import strategies
from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import of_verdict
from zero_sizer.cli.progress import Progress
from zero_sizer.errors import InputError
from zero_sizer.job.read import Job, without_config
from zero_sizer.util.files import require_writable, write_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False)
    options.add_format_option(parser)
    add_choice_options(parser)
    parser.add_argument("--emit", metavar="FILE", help="write the chosen DeepSpeed config here")
    parser.set_defaults(run=run)


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """What `choose` and `size` can be told."""
    group = parser.add_argument_group("choice")
    group.add_argument(
        "--train-batch-size",
        type=options.count,
        metavar="SAMPLES",
        help="of one optimizer step over all GPUs; free where neither this nor the config says",
    )
    group.add_argument(
        "--margin", type=_share, help="share of every device to leave free, e.g. 0.05"
    )


def job_from(arguments: argparse.Namespace) -> Job:
    """The job; without CONFIG, AdamW in what --precision says, else in what suits the GPU."""
    if arguments.config is None:
        flags = options.flags_from(arguments)
        precision = flags.precision or _precision(flags.gpu)
        return without_config(default_config(precision), flags)
    return options.job_from(arguments)


def _precision(gpu: str | None) -> str:
    try:
        return usual_precision(gpu)
    except InputError:
        return "bf16"  # the job's reader says what is wrong with the name


def run(arguments: argparse.Namespace) -> int:
    """Print the choice, write its config; the exit code is that of ``check`` on it."""
    from zero_sizer.report import advice

    require_writable(arguments.emit, "--emit")
    job = job_from(arguments)
    with Progress("choosing", len(strategies(job))) as progress:
        choice = choose(
            job,
            Options(
                margin=arguments.margin,
                train_batch=arguments.train_batch_size,
                tick=progress.tick,
            ),
        )
    if arguments.format == "json":
        print(json.dumps(advice.choice_mapping(choice), indent=1, default=str))
    else:
        advice.show_choice(choice)
    if arguments.emit:
        _emit(choice, arguments.emit, quiet=arguments.format == "json")
    return of_verdict(choice.verdict)


def _emit(choice: Choice, path: str, *, quiet: bool) -> None:
    if choice.winner is None:
        raise InputError("nothing fits, so there is no config to write", where="--emit")
    values = choice.search.job_of(choice.winner).document.values
    write_text(path, json.dumps(values, indent=2) + "\n")
    if not quiet:
        print(f"\nconfig written to {path}")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
