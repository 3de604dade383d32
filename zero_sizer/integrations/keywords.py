"""Keywords of the integrations: what a person may state of a run, and the error of any other."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.api.errors import JobError, job_error
from zero_sizer.api.keywords import plain
from zero_sizer.errors import InputError
from zero_sizer.job.fields import CLUSTER, OPTIONS, WORKLOAD, Field
from zero_sizer.questions.jobs import HOW, flags_of
from zero_sizer.util.spelling import did_you_mean, shown

_READ: Mapping[str, Field] = {
    option.name: option
    for option in OPTIONS
    if option in (*CLUSTER, *WORKLOAD) and option.group == option.section and option.name != "task"
}
_SEEN, _UNREAD = "it is seen of the run itself", "no prediction of a run reads it"


def checked(of: str, own: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """The statements, each a keyword that a prediction reads and a value that it may have.

    Args:
        of: name of the callback or the function.
        own: its keywords that are not of the job.
        values: by keyword.

    Raises:
        JobError: another keyword, or a wrong value: before the run, and not in the midst of it.
    """
    known = (*own, *_READ, HOW)
    others = {o.name: _UNREAD if o.group else _SEEN for o in OPTIONS if o.name not in known}
    for name in values:
        if name not in known:
            hint = others.get(name) or did_you_mean(name, known)
            raise JobError(
                f"{shown(name)} is no keyword of {of}",
                remedy=hint or f"it takes {', '.join(known)}",
            )
    found = {name: plain(value) for name, value in values.items() if value is not None}
    try:
        for name, value in found.items():
            if name != HOW:
                _READ[name].parse(value, name)
        flags_of(found)
    except InputError as error:
        raise job_error(error) from None
    return found
