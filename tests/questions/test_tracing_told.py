"""Progress of a search that traces its model first."""

from contextlib import contextmanager

from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.questions import choose, profile


def test_whoever_waits_for_a_trace_is_told_as_each_begins(monkeypatch):
    told = []

    @contextmanager
    def progress(title, total):
        yield lambda: told.append((title, total))

    def traced(job, tell):
        for _ in range(2):
            tell("tracing")

    monkeypatch.setattr(profile, "with_variants", traced)
    job = without_config({}, Flags(model="flux.1-dev", gpu="h100-80gb", gpus_per_node=8))
    choose._prepared(job, progress)
    assert told == [("tracing flux.1-dev, once", 4)] * 2
