"""A profile traced on the way, where the closed form would say too little."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from typing import Any

from zero_sizer.activations import select, store
from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import ZeroSizerError
from zero_sizer.findings import (
    CLOSED_FORM,
    IMAGE_TOO_LONG,
    INPUTS_NOT_MODELLED,
    RECORDING_TOO_SHORT,
    Finding,
    Severity,
)
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.attention import FLASH
from zero_sizer.models.inputs import besides_tokens
from zero_sizer.models.recurrence import beyond_closed_form
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing, size

_MOST_CALLS = 4096
"""Calls of attention in one block that are traced, a minute and a half of the processor."""
_REFUSED = (IMAGE_TOO_LONG, RECORDING_TOO_SHORT)
VARIANTS = tuple(product((2, 3), (False, True)))
"""Stages, and activation checkpointing, of which plans may run a model."""
_TRACING_HELPS = (CLOSED_FORM, INPUTS_NOT_MODELLED)


def with_profile(sizing: Sizing, tell: Callable[[str], None]) -> Sizing:
    """Sizes the job again with a profile of its model, traced and kept for later, if that may help.

    Of a text model only where nothing else keeps the verdict open; of one that reads and writes, is
    fed more than tokens, or carries a state along the sequence, always: no closed form knows what
    it keeps.

    Args:
        sizing: without the profile.
        tell: is told what is being done, for whoever waits.
    """
    plan = sizing.plan
    if plan is None or not _is_worth_it(sizing, plan):
        return sizing
    is_refused = any(finding.code in _REFUSED for finding in sizing.findings)
    if is_refused or (plan.feed is not None and plan.seq_len < plan.feed.fewest):
        return _without_tracing(sizing, "its forward raises, and so is not traced")
    if _num_calls(plan) > _MOST_CALLS:
        return _without_tracing(
            sizing,
            f"{plan.attention} attention looks at one window of an image at a time, "
            f"{_num_calls(plan):,} in each block of a micro batch, which would be traced for "
            "minutes; --attention flash is one call, or give fewer or smaller --images",
        )
    try:
        _trace(plan, tell)
    except (ZeroSizerError, OSError) as error:  # untrainable, or nowhere to write
        return _not_traced(sizing, plan, error)
    return size(sizing.job)


def with_variants(job: Job, tell: Callable[[str], None]) -> None:
    """Traces what plans of a job may run: at stage 3 and below, with and without checkpointing.

    Only of a model that no closed form knows, where torch and its package are installed.

    Args:
        job: whose plans are compared.
        tell: is told what is being done, for whoever waits.
    """
    plan = size(job).plan
    if plan is None or not _is_beyond_closed_forms(plan):
        return
    for stage, on in VARIANTS:
        other = replace(
            plan,
            stage=stage,
            checkpointing=on,
            saves_linear_inputs=stage == 3,
        )
        if _is_known(other) or not _may_trace(other) or _num_calls(other) > _MOST_CALLS:
            continue
        with suppress(ZeroSizerError, OSError):  # then such plans are not decided
            _trace(other, tell)


def _num_calls(plan: Plan) -> int:
    """Calls of attention that one block of a tower makes for a micro batch."""
    return 1 if plan.feed is None or plan.attention == FLASH else plan.feed.calls * plan.micro_batch


def _is_known(plan: Plan) -> bool:
    return not select.is_closed_form(plan)


def _not_traced(sizing: Sizing, plan: Plan, error: Exception) -> Sizing:
    """The closed form stays, and why."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    known = _without_tracing(sizing, f"it could not be traced: {text}")
    refused = Finding(
        code="not-traced",
        severity=Severity.NOTE if plan.feed is None else Severity.WARNING,
        key="--model",
        message=f"{plan.model.name} could not be traced: {text}",
        remedy="`zero-sizer dryrun --how simulated -- train.py` runs the training script",
    )
    return replace(known, findings=(*known.findings, refused))


def _without_tracing(sizing: Sizing, why: str) -> Sizing:
    """Says why tracing does not help in place of the advice to trace."""
    findings = (replace(f, remedy=why) if f.code in _TRACING_HELPS else f for f in sizing.findings)
    reasons = (replace(r, remedy=why) if r.code in _TRACING_HELPS else r for r in sizing.reasons)
    return replace(sizing, findings=tuple(findings), reasons=tuple(reasons))


def _trace(plan: Plan, tell: Callable[[str], None]) -> None:
    """Traces the setups of a plan that are not there."""
    from zero_sizer.tracing.cached import trace_setup

    model, at = plan.model.base or plan.model, (plan.micro_batch, plan.seq_len)
    for asked in select.wanted(plan):
        if store.load_setup(model, plan.feed, asked, at) is None:
            trace_setup(model, plan.feed, asked, at, tell)


def _may_trace(plan: Plan) -> bool:
    model = plan.model
    if plan.task == INFERENCE or not model.hf_config or not model.exact_tensors:
        return False
    return all(find_spec(name) for name in _needed(model.hf_config))


def _is_beyond_closed_forms(plan: Plan) -> bool:
    model = plan.model
    is_fed = plan.feed is not None or bool(model.arch.decoder_layers)
    return is_fed or bool(beyond_closed_form(model))


def _is_worth_it(sizing: Sizing, plan: Plan) -> bool:
    model = plan.model
    if not _may_trace(plan) or _is_known(plan):
        return False
    if _is_beyond_closed_forms(plan):
        return True
    return (
        sizing.verdict is Verdict.UNCERTAIN
        and {reason.code for reason in sizing.reasons} == {CLOSED_FORM}
        and not besides_tokens(model)
    )


def _needed(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Packages that build the model."""
    return ("torch", "diffusers" if "_class_name" in fields else "transformers")
