"""``zero-sizer crosscheck``: the prediction beside every witness asked for."""

import argparse
from collections.abc import Iterator

from zero_sizer.cli import dryrun, options
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, OK, exit_code
from zero_sizer.config.workload import INFERENCE
from zero_sizer.crosscheck import compare
from zero_sizer.crosscheck.causes import explained
from zero_sizer.dryrun import to_job
from zero_sizer.dryrun.recording import Recording, read
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.dryrun.verdict import verdict_of
from zero_sizer.errors import InputError
from zero_sizer.job.fields import GOAL, TRAINING_RUN
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.formats import reporter
from zero_sizer.sizing import Sizing, size

WITNESSES = ("helpers", "rules", *dryrun.HOWS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False, leave_out=(TRAINING_RUN, GOAL))
    options.add_format_option(parser, "crosscheck")
    parser.add_argument(
        "--with",
        "--witness",
        dest="witness",
        action="append",
        choices=WITNESSES,
        help="may be given several times; helpers where none is given",
    )
    parser.add_argument(
        "--recording",
        action="append",
        default=[],
        metavar="FILE",
        help="of an earlier dry run, or of a trained run; one that says its job needs no CONFIG",
    )
    dryrun.add_run_options(parser, ranks_help="ranks of each dry run, on one node")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one table for every witness; the exit code says whether prediction and runs fit."""
    wanted = arguments.witness or ([] if arguments.recording else ["helpers"])
    runs = [name for name in wanted if name in dryrun.HOWS]
    dryrun.refuse_unused(arguments, runs, also=("ranks",) if runs else ())
    recorded = [read(path) for path in arguments.recording]
    job = _job(arguments, recorded)
    if job.workload.task == INFERENCE and (wanted != ["rules"] or recorded):
        raise InputError(
            "inference is laid beside rules of thumb alone",
            remedy="take --with rules; `zero-sizer dryrun` runs it",
            where=job.workload.origins.get("task", "--task"),
        )
    recordings: list[Recording] = []
    checks = list(_checks(arguments, job, wanted, recordings))
    for recording in recorded:
        checks.append(_against(cut_job(job, recording.job.get("layers")), recording))
    recordings += recorded
    sizing = size(job)
    reporter("crosscheck", arguments.format)(sizing, checks)
    return _exit_code(sizing, recordings)


def _job(arguments: argparse.Namespace, recorded: list[Recording]) -> Job:
    """The job that is asked about; without CONFIG that of the first recording."""
    if arguments.config is None and recorded and arguments.model is None:
        return to_job.job_of(recorded[0], options.flags_from(arguments))
    options.require_config(arguments, options.flags_from(arguments))
    return options.job_of_any_task(arguments)


def _exit_code(sizing: Sizing, recordings: list[Recording]) -> int:
    """What runs say counts before what is predicted; 0 where nobody stated a GPU."""
    runs = {verdict_of(recording)[0] for recording in recordings}
    if Verdict.DOES_NOT_FIT in runs:
        return DOES_NOT_FIT
    if sizing.job.cluster.gpu_memory is None:
        return OK
    return exit_code(sizing)


def _checks(
    arguments: argparse.Namespace, job: Job, wanted: list[str], recordings: list[Recording]
) -> Iterator[compare.Crosscheck]:
    for witness in dict.fromkeys(wanted):
        if witness == "helpers":
            yield compare.against_helpers(job)
            continue
        if witness == "rules":
            yield compare.against_rules(job)
            continue
        there = job if arguments.ranks is None else dryrun.on_ranks(job, arguments.ranks)
        recording = dryrun.record(arguments, witness, there)
        recordings.append(recording)
        yield _against(cut_job(job, arguments.layers), recording)


def _against(job: Job, recording: Recording) -> compare.Crosscheck:
    recorded = compare.recorded_job(job, recording)
    return explained(compare.against_recording(recorded, recording), recorded, recording)
