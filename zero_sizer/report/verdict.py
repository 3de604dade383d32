"""The first lines of an answer: the verdict, what decides it, and the job in one breath."""

from collections.abc import Iterator, Sequence

from zero_sizer.config.workload import INFERENCE
from zero_sizer.findings import Reason, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import WHOSE, Verdict
from zero_sizer.models.feeds import feed_of
from zero_sizer.plan.plan import Plan
from zero_sizer.report.table import show_line
from zero_sizer.sizing import Sizing
from zero_sizer.units import format_gib
from zero_sizer.util.terminal import one_line

WORDS = {
    Verdict.FITS: "FITS",
    Verdict.DOES_NOT_FIT: "DOES NOT FIT",
    Verdict.UNCERTAIN: "COULD NOT TELL",
}
NOTHING_RUNS = "NOTHING CAN RUN"
_MOST = 3  # reasons printed; the JSON has them all


def show_verdict(sizing: Sizing) -> None:
    """Print the verdict and its reasons: nobody launches a job that fits and is refused."""
    if not sizing.is_valid and sizing.verdict is Verdict.FITS:
        show_line(f"{told(sizing)}, but: {_first_error(sizing)}", indent="    ")
        return
    first = (
        [] if sizing.is_valid or sizing.verdict is not Verdict.UNCERTAIN else [_first_error(sizing)]
    )
    show_words(told(sizing), [*first, *_reasons(sizing)])


def _first_error(sizing: Sizing) -> str:
    errors = (f.message for f in sizing.findings if f.severity is Severity.ERROR)
    return next(errors, "")


def told(sizing: Sizing) -> str:
    """The verdict's word, with what makes the job invalid."""
    errors = sum(finding.severity is Severity.ERROR for finding in sizing.findings)
    if errors and sizing.verdict is Verdict.FITS:
        return f"{invalid(errors)}   it would fit"
    return WORDS[sizing.verdict] + (f", {invalid(errors)}" if errors else "")


def invalid(errors: int) -> str:
    """Words about a job that DeepSpeed would refuse, or did."""
    return f"NOT VALID ({errors} error{'s' if errors > 1 else ''} below)"


def show_words(word: str, reasons: Sequence[str]) -> None:
    """Print the verdict's word with the first reason beside it, and a few more below."""
    first, *others = reasons or [""]
    show_line(f"{word}   {first}", indent="    ")
    _show_more(others)


def _show_more(reasons: Sequence[str]) -> None:
    for reason in reasons[: _MOST - 1]:
        show_line(f"    also: {reason}", indent="      ")
    if len(reasons) > _MOST - 1:
        print(f"    and {len(reasons) - _MOST + 1} more (--format json lists them all)")


def _reasons(sizing: Sizing) -> Iterator[str]:
    if sizing.verdict is Verdict.FITS:
        yield free(sizing)
    else:
        yield from map(reason_line, sizing.reasons)


def reason_line(reason: Reason) -> str:
    """Joins what decides, and how to find out."""
    return reason.message + (f"; {reason.remedy}" if reason.remedy else "")


def free(sizing: Sizing) -> str:
    """Bytes that stay free at least, in words: the most that anything may take is counted."""
    parts = []
    for device in Device:
        there, need = sizing.capacities[device].num_bytes, sizing.needs[device].high
        if there is not None and need is not None and sizing.peaks[device].num_bytes:
            parts.append(f"{format_gib(there - need)} of {WHOSE[device]}")
    if not parts:
        return ""
    is_assumed = any(finding.code == "assumed-seq-len" for finding in sizing.findings)
    tokens = sizing.plan.seq_len if sizing.plan is not None and is_assumed else 0
    told = f", with the {tokens} tokens that are assumed (--seq-len)" if tokens else ""
    return f"at least {' and '.join(parts)} stay free{told}"


def show_job(sizing: Sizing) -> None:
    """Print the job in one breath."""
    show_line(", ".join(job_words(sizing.job, sizing.plan)), indent="")


def job_words(job: Job, plan: Plan | None) -> Iterator[str]:
    """The job in words, to be joined by commas."""
    cluster = job.cluster
    gpu = cluster.gpu.name if cluster.gpu else "GPUs that were not named"
    yield f"{one_line(job.model.name, 500)} ({count_of(job.model.num_params)})"
    if plan is not None and plan.task == INFERENCE:
        yield from _inference(job, plan)
        return
    if plan is not None:
        yield f"ZeRO-{plan.stage}"
        yield plan.model_dtype.value
        yield plan.optimizer.name
    yield f"{cluster.layout} {gpu}"
    if plan is None:
        return
    yield _batch(plan)
    if plan.grad_accum > 1:
        yield f"{plan.grad_accum} gradient accumulation steps"
    how = plan.checkpointing_how.about if plan.checkpointing else ""
    on = "activation checkpointing" + (f" ({how})" if how else "")
    yield on if plan.checkpointing else "no activation checkpointing"
    yield f"{plan.attention} attention"


def _batch(plan: Plan) -> str:
    """The micro batch in words: samples, and what each brings."""
    return f"micro batch {plan.micro_batch} x {brings(plan)}"


def brings(plan: Plan) -> str:
    """Tokens, images and sound of one sample, in words."""
    feed = plan.feed
    if feed is None:
        return f"{plan.seq_len} tokens"
    tokens = f"{plan.seq_len} tokens" if feed.has_tokens else ""
    return " with ".join(part for part in (tokens, feed.brief) if part)


def _inference(job: Job, plan: Plan) -> Iterator[str]:
    gpu = job.cluster.gpu.name if job.cluster.gpu else "GPUs that were not named"
    yield "inference" + (f", ZeRO-{plan.stage}" if plan.stage else "")
    yield plan.model_dtype.value
    yield f"{job.cluster.layout} {gpu}"
    sequences = f"{plan.micro_batch} sequence" + ("s" if plan.micro_batch > 1 else "")
    if plan.new_tokens:
        yield f"{sequences} of {plan.seq_len} tokens and {plan.new_tokens} new ones"
        yield f"{plan.cache} cache"
    else:
        yield f"one forward of {sequences} of {plan.seq_len} tokens"
    yield f"{plan.attention} attention"


def count_of(parameters: int) -> str:
    """Parameters as people say them: 8.03B, 124M."""
    if parameters >= 10**9:
        return f"{parameters / 10**9:.2f}B"
    return f"{parameters / 10**6:.0f}M" if parameters >= 10**6 else f"{parameters:,}"


def rate_name(job: Job) -> str:
    """Unit of a rate: tokens a second, or samples of a model that reads none."""
    feed = feed_of(job.model, job.workload.said)
    return "tokens/s" if feed is None or feed.has_tokens else "samples/s"


def untimed(job: Job) -> str:
    """Why seconds are none of a model that is fed more than tokens; empty where they are known."""
    feed = feed_of(job.model, job.workload.said)
    if feed is None:
        return ""
    from zero_sizer.models.feeds.rows import is_timed

    if is_timed(job.model):
        return ""
    return (
        f"no seconds: what {job.model.name} computes of {feed.brief} is not modelled; plans are "
        "ordered by what its weights alone would take, and the rates below are no forecast"
    )
