"""Inputs of each sample of a job: as stated, else as the model's config says."""

from dataclasses import replace

from zero_sizer.findings import Direction
from zero_sizer.job.read import Job
from zero_sizer.models.feeds import Feed, feed_of
from zero_sizer.plan.assumptions import Assumptions


def feed_of_job(job: Job, assumed: Assumptions) -> Feed | None:
    """Inputs of a sample; of those that nobody stated it is said where they come from."""
    said = job.workload.said
    feed = feed_of(job.model, said)
    if feed is None:
        return None
    for name, value in feed.said.items():
        if getattr(said, name) is None:
            assumed.take(
                name,
                value,
                f"each sample is taken to bring {feed.about}, {_why(job, feed)}",
                f"--{name.replace('_', '-')} says another" if name in feed.free else "",
                # a sample may bring more, and nobody knows how much more
                Direction.COST if name in feed.left_to_data else None,
            )
    return feed


def _why(job: Job, feed: Feed) -> str:
    """Grounds of an input that nobody stated."""
    said, most = job.workload.said, job.workload.max_pixels
    if most is None or feed == feed_of(job.model, replace(said, max_pixels=None)):
        return f"as the config of {job.model.name} says"
    return f"of at most {most:,} pixels ({job.workload.origins['max_pixels']})"
