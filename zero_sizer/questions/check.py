"""Will this job fit, and where does every byte go?"""

from collections.abc import Callable

from zero_sizer.answer import Answer, answer_of
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Config
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.questions.jobs import goal_of, job_of
from zero_sizer.sizing import size


def check(
    config: Config, flags: Flags, *, timeline: bool = False, tell: Callable[[str], None]
) -> Answer:
    """The finished answer.

    Args:
        config: file or mapping.
        flags: what was stated beside it.
        timeline: also what lives at each place of the step.
        tell: is told what takes long.

    Raises:
        ZeroSizerError: the question cannot be read, or not be answered.
    """
    job = job_of(config, flags)
    goal = goal_of(flags, job)
    sizing = size(job)
    if sizing.verdict is Verdict.UNCERTAIN:
        from zero_sizer.questions.profile import with_profile

        sizing = with_profile(sizing, tell)
    return answer_of(sizing, points=timeline, goal=goal)
