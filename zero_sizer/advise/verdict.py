"""The verdict on a search: that of the plan it chose, or why none was found."""

from collections.abc import Iterable

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.left_open import settled
from zero_sizer.advise.limits import Shortfall
from zero_sizer.advise.rejected import RejectedStrategy
from zero_sizer.advise.search import Search
from zero_sizer.findings import Direction, Finding, Reason
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.verdict import WHOSE, Verdict, is_open, short_of
from zero_sizer.sizing import size
from zero_sizer.units import format_gib


def verdict_of(
    search: Search, chosen: Candidate | None, losses: Iterable[RejectedStrategy]
) -> tuple[Verdict, tuple[Reason, ...]]:
    """Verdict of ``check`` on the chosen plan; without one, whether that is for certain.

    Args:
        search: what was searched.
        chosen: the plan that answers, or None.
        losses: strategies of which nothing fits.
    """
    if chosen is not None:
        sizing = settled(size(search.job_of(chosen)))
        return sizing.verdict, sizing.reasons
    if search.refusal is not None:
        return Verdict.DOES_NOT_FIT, (_of_refusal(search.refusal),)
    losses = list(losses)
    savings = tuple(
        Reason(
            device=finding.device,
            code=finding.code,
            direction=finding.direction or Direction.EITHER,
            message=finding.message,
            remedy=finding.remedy,
        )
        for finding in search.warnings
        if finding.direction is not Direction.COST and is_open(finding)
    )
    tight = next((loss for loss in losses if is_tight(loss)), None)
    if tight is not None:
        found = tuple(_of_shortfall(s, tight) for s in tight.shortfalls)
        return Verdict.UNCERTAIN, (*found, *_refused(losses))
    if savings and any(loss.closest for loss in losses):
        return Verdict.UNCERTAIN, savings
    closest = next((loss for loss in losses if loss.shortfalls), None)
    short = () if closest is None else closest.shortfalls
    found = tuple(_of_shortfall(s, closest) for s in short)
    return Verdict.DOES_NOT_FIT, (*found, *_refused(losses))


def _refused(losses: Iterable[RejectedStrategy]) -> tuple[Reason, ...]:
    """Why DeepSpeed would not run others, each error once: they may fit once that is mended."""
    errors = {loss.refusals[0].code: loss.refusals[0] for loss in losses if loss.refusals}
    return tuple(_of_refusal(error) for error in errors.values())


def _of_refusal(error: Finding) -> Reason:
    return Reason(
        device="",
        code=error.code,
        direction=Direction.EITHER,
        message=error.message,
        remedy=error.remedy,
    )


def is_tight(loss: RejectedStrategy) -> bool:
    """True if the closest plan of a strategy may fit after all."""
    return bool(loss.shortfalls) and not any(s.is_certain for s in loss.shortfalls)


def _of_shortfall(shortfall: Shortfall, loss: RejectedStrategy | None) -> Reason:
    name = "" if loss is None else f"{loss.strategy.name}: "
    suffix = "too-small" if shortfall.is_certain else "tight"
    if shortfall.missing_bytes is None:
        suffix = "unknown"
    return Reason(
        device=shortfall.device.value,
        code=f"{shortfall.device.value}-{suffix}",
        direction=Direction.COST,
        message=name + words_of(shortfall),
    )


def words_of(shortfall: Shortfall) -> str:
    """A shortfall as every command says it."""
    device = shortfall.device
    if shortfall.missing_bytes is None:
        memory = "NVMe" if device is Device.NVME else f"{device.value} memory"
        size = shortfall.need_bytes if shortfall.size_for is None else shortfall.size_for()
        return f"{memory} was not stated; {format_gib(size)} a node would do"
    if shortfall.is_certain:
        return f"{short_of(device, shortfall.missing_bytes)}, in {shortfall.moment.phase.value}"
    return (
        f"{WHOSE[device]} may be up to {format_gib(shortfall.over_bytes or 0)} short, what shall "
        f"stay free included, in {shortfall.moment.phase.value}"
    )
