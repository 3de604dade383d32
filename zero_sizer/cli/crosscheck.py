"""``zero-sizer crosscheck``: the prediction beside every witness asked for."""

import argparse
from collections.abc import Iterator

from zero_sizer.cli import dryrun, options
from zero_sizer.errors import InputError
from zero_sizer.job import Job
from zero_sizer.witnesses import crosscheck
from zero_sizer.witnesses.cut import cut_job

WITNESSES = ("helpers", "rules", *dryrun.HOWS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser)
    options.add_format_option(parser)
    parser.add_argument(
        "--with",
        "--witness",
        dest="witness",
        action="append",
        choices=WITNESSES,
        help="may be given several times; helpers where none is given",
    )
    parser.add_argument(
        "--recording", action="append", default=[], metavar="FILE", help="of an earlier dry run"
    )
    dryrun.add_run_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one table for every witness."""
    wanted = arguments.witness or ([] if arguments.recording else ["helpers"])
    job = options.job_from(arguments)
    checks = list(_checks(arguments, job, wanted))
    if arguments.format == "json":
        import json

        print(json.dumps(_joined(checks).to_json(), indent=1))
    else:
        from zero_sizer.report import crosscheck as report

        for check in checks:
            report.show(check)
    return 0


def _checks(
    arguments: argparse.Namespace, job: Job, wanted: list[str]
) -> Iterator[crosscheck.Crosscheck]:
    for witness in dict.fromkeys(wanted):
        if witness == "helpers":
            yield crosscheck.against_helpers(job)
            continue
        if witness == "rules":
            yield crosscheck.against_rules(job)
            continue
        recording = dryrun.record(arguments, witness)
        cut = cut_job(job, arguments.layers)
        yield crosscheck.against_recording(crosscheck.recorded_job(cut, recording), recording)
    for path in arguments.recording:
        from zero_sizer.witnesses.recording import read

        recording = read(path)
        layers = recording.job.get("layers")
        if layers is not None and not isinstance(layers, int):
            raise InputError("job.layers is not a number", where=path)
        recorded = crosscheck.recorded_job(cut_job(job, layers), recording)
        yield crosscheck.against_recording(recorded, recording)


def _joined(checks: list[crosscheck.Crosscheck]) -> crosscheck.Crosscheck:
    return crosscheck.Crosscheck(
        rows=tuple(row for check in checks for row in check.rows),
        differences=tuple(item for check in checks for item in check.differences),
        notes=tuple(note for check in checks for note in check.notes),
    )
