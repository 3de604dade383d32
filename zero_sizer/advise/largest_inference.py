"""The largest batch of sequences, or the longest context, that ``check`` calls a fit."""

from collections.abc import Callable
from dataclasses import replace

from zero_sizer.advise.largest import Largest, bisect, fits
from zero_sizer.errors import InputError
from zero_sizer.job.read import Job
from zero_sizer.models.positions import longest_sequence
from zero_sizer.plan.inference import plan_inference
from zero_sizer.sizing import size

WHAT = ("batch-size", "seq-len")
_MOST_SEQUENCES = 2**16
_MOST_TOKENS = 2**20
_STEP = 16  # tokens


def largest_of(job: Job, what: str) -> Largest:
    """The largest of ``what`` with everything else as the job has it.

    ``seq-len`` is the prompt and the new tokens together: the prompt grows.

    Raises:
        InputError: something that inference does not have.
    """
    if what not in WHAT:
        raise InputError(
            f"inference has no largest {what}",
            remedy=f"ask for {' or '.join(WHAT)}",
            where="--largest",
        )
    plan = plan_inference(job).plan
    if plan is None:
        return Largest(what=what, value=None)
    new_tokens = plan.new_tokens
    if what == "batch-size":
        step, least, top, limit = 1, 0, _MOST_SEQUENCES, "nothing larger was tried"

        def at(value: int) -> Job:
            return _with(job, batch_size=value, prompt=plan.seq_len, new_tokens=new_tokens)
    else:
        table = longest_sequence(job.model) or job.model.arch.max_positions
        most = _MOST_TOKENS if table is None else min(table, _MOST_TOKENS)
        least = new_tokens
        step = _STEP if most - least > _STEP else 1
        top = most - least
        limit = "nothing longer was tried"
        if table is not None and table <= _MOST_TOKENS:
            limit = f"{job.model.name} has {table} positions"

        def at(value: int) -> Job:
            return _with(
                job, batch_size=plan.micro_batch, prompt=value - new_tokens, new_tokens=new_tokens
            )

    return _largest(what, at, least, step, top, limit)


def _largest(
    what: str, at: Callable[[int], Job], least: int, step: int, top: int, limit: str
) -> Largest:
    found = bisect(lambda number: fits(at(least + number * step)), max(top // step, 0))
    if not found:
        return Largest(what=what, value=None)
    value = least + found * step
    is_last = found >= top // step
    beyond = None if is_last else (value + step, size(at(value + step)).verdict)
    return Largest(
        what=what,
        value=value,
        strategy="everything else as stated",
        sizing=size(at(value)),
        beyond=beyond,
        limit=limit if is_last else "",
    )


def _with(job: Job, **values: int) -> Job:
    return replace(job, workload=replace(job.workload, **values))  # type: ignore[arg-type]
