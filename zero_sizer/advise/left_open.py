"""Inputs that only the samples tell: up to how many images a job fits, where nobody said.

The verdict stays open all the same: jobs whose images nobody stated have died where they should
have fitted by what is assumed (LLaVA's issue 655).
"""

from dataclasses import replace

from zero_sizer.findings import CLOSED_FORM, Direction, Reason
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.feeds import Feed, Images, Said, feed_of
from zero_sizer.sizing import Sizing, size

_IMAGES, _AUDIO = "assumed-images", "assumed-audio-seconds"
_DECIDES = "images-decide"
_MOST = 1024  # images of a sample that are looked at


def is_left_to_data(sizing: Sizing) -> bool:
    """True if the job fits with what is assumed of a sample, and another sample may bring more."""
    open_ = {reason.code for reason in sizing.reasons}
    return sizing.verdict is Verdict.UNCERTAIN and bool(open_) and open_ <= {_IMAGES, _AUDIO}


def as_assumed(job: Job) -> Job:
    """A job that states what is assumed of a sample, for a question that only a fit answers."""
    feed, workload = feed_of(job.model, job.workload.said), job.workload
    left = feed.left_to_data if feed is not None else ()
    if "images" in left and workload.images is None:
        workload = replace(workload, images=Images(1))
    if feed is not None and "audio_seconds" in left and workload.audio_seconds is None:
        workload = replace(workload, audio_seconds=feed.said["audio_seconds"])
    return job if workload is job.workload else replace(job, workload=workload)


def settled(sizing: Sizing) -> Sizing:
    """A sizing whose reason says how far it fits; others are answered as they are."""
    assumed = {finding.code for finding in sizing.findings}
    feed = sizing.plan.feed if sizing.plan is not None else None
    if feed is None or not assumed & {_IMAGES, _AUDIO}:
        return sizing
    if is_left_to_data(sizing):
        return _up_to(sizing, feed) if _IMAGES in assumed else _with_audio(sizing, feed)
    if sizing.verdict is Verdict.DOES_NOT_FIT and _IMAGES in assumed and feed.has_tokens:
        return _without(sizing, feed)
    return sizing


def _up_to(sizing: Sizing, feed: Feed) -> Sizing:
    job, tokens = sizing.job, sizing.plan.seq_len if sizing.plan is not None else 0
    held = _held(job, tokens)
    if _fits(_with(job, held)):
        count, limit = held, f", all that {tokens:,} tokens hold"
    else:
        count = max(_bisect(job, held), 1)
        is_known = not any(f.code == CLOSED_FORM for f in _with(job, count + 1).findings)
        limit = (
            f"; {count + 1} may not" if is_known else ", and more are traced where they are said"
        )
    return _told(
        sizing,
        f"it fits with up to {_of(count, feed)} a sample{limit}. How many yours bring, and how "
        "large, was not stated",
    )


def _with_audio(sizing: Sizing, feed: Feed) -> Sizing:
    return _told(sizing, f"it fits with {feed.about}. How long yours are was not stated")


def _without(sizing: Sizing, feed: Feed) -> Sizing:
    """A job that is too small for the image that is assumed, and may be trained on text."""
    if not _fits(_with(sizing.job, 0)):
        return sizing
    short = "; ".join(reason.message for reason in sizing.reasons)
    return _told(sizing, f"it fits on text alone. With {feed.brief} a sample {short}", _DECIDES)


def _told(sizing: Sizing, message: str, code: str | None = None) -> Sizing:
    flag = (
        "audio-seconds" if "assumed-images" not in {f.code for f in sizing.findings} else "images"
    )
    reason = Reason(
        device="gpu",
        code=code or f"assumed-{flag}",
        direction=Direction.COST,
        message=message,
        remedy=f"give --{flag}",
    )
    return replace(sizing, verdict=Verdict.UNCERTAIN, reasons=(reason,))


def _held(job: Job, tokens: int) -> int:
    """Images of the assumed size for which a sequence has places."""
    low, high = 1, _MOST
    while low < high:
        middle = (low + high + 1) // 2
        if _feed(job, Images(middle)).fewest <= tokens:
            low = middle
        else:
            high = middle - 1
    return low


def _bisect(job: Job, held: int) -> int:
    low, high = 0, held - 1
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(_with(job, middle)):
            low = middle
        else:
            high = middle - 1
    return low


def _feed(job: Job, images: Images) -> Feed:
    said: Said = replace(job.workload.said, images=images)
    return feed_of(job.model, said) or Feed(inputs=())


def _with(job: Job, count: int) -> Sizing:
    return size(replace(job, workload=replace(job.workload, images=Images(count))))


def _fits(sizing: Sizing) -> bool:
    return sizing.verdict is Verdict.FITS


def _of(count: int, feed: Feed) -> str:
    one, _, of = feed.brief.removeprefix("1 ").partition(" of ")
    return f"{count} {one if count == 1 else one + 's'} of {of}"
