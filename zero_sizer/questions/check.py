"""Will this job fit, and where does every byte go?"""

from collections.abc import Callable
from dataclasses import replace

from zero_sizer.answer import Answer, answer_of
from zero_sizer.config.workload import INFERENCE
from zero_sizer.findings import ACTIVATIONS_UNKNOWN, CLOSED_FORM
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Config
from zero_sizer.questions.jobs import goal_of, job_of
from zero_sizer.sizing import size


def check(
    config: Config,
    flags: Flags,
    *,
    timeline: bool = False,
    fit_map: bool = False,
    tell: Callable[[str], None],
) -> Answer:
    """The finished answer.

    Args:
        config: file or mapping.
        flags: what was stated beside it.
        timeline: also what lives at each place of the step.
        fit_map: also what fits at other micro batches and nodes.
        tell: is told what takes long.

    Raises:
        ZeroSizerError: the question cannot be read, or not be answered.
    """
    job = job_of(config, flags, takes_inference=True)
    goal = goal_of(flags, job)
    sizing = size(job)
    if any(finding.code in (CLOSED_FORM, ACTIVATIONS_UNKNOWN) for finding in sizing.findings):
        from zero_sizer.questions.profile import with_profile

        sizing = with_profile(sizing, tell)
    if sizing.plan is not None and sizing.plan.feed is not None:
        from zero_sizer.advise.left_open import settled

        sizing = settled(sizing)
    answer = answer_of(sizing, points=timeline, goal=goal)
    if not fit_map or job.workload.task == INFERENCE:
        return answer
    from zero_sizer.advise.fit_map import fit_map_of

    return replace(answer, fit_map=fit_map_of(sizing))
