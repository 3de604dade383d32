"""A profile traced on the way, where the closed form would say too little."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

from zero_sizer.activations import select, store
from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import ZeroSizerError
from zero_sizer.findings import CLOSED_FORM, Finding, Severity
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.inputs import besides_tokens
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing, size

def with_profile(sizing: Sizing, tell: Callable[[str], None]) -> Sizing:
    """Sizes the job again with a profile of its model, traced and kept for later, if that may help.

    Of a text model only where nothing else keeps the verdict open; of one that reads and writes, or
    is fed more than tokens, always: no closed form knows what it keeps.

    Args:
        sizing: without the profile.
        tell: is told what is being done, for whoever waits.
    """
    plan = sizing.plan
    if plan is None or not _is_worth_it(sizing, plan):
        return sizing
    model, at = plan.model.base or plan.model, (plan.micro_batch, plan.seq_len)
    try:
        from zero_sizer.tracing.cached import trace_setup

        for asked in select.wanted(plan):
            if store.load_setup(model, plan.feed, asked, at) is None:
                trace_setup(model, plan.feed, asked, at, tell)
    except (ZeroSizerError, OSError) as error:  # untrainable, or nowhere to write
        return replace(sizing, findings=(*sizing.findings, _not_traced(model.name, error)))
    return size(sizing.job)


def _not_traced(name: str, error: Exception) -> Finding:
    """The closed form stays, and why."""
    text = " ".join(str(error).split())[:300]
    return Finding(
        code="not-traced",
        severity=Severity.NOTE,
        key="--model",
        message=f"{name} could not be traced: {text}",
        remedy="`zero-sizer dryrun --how simulated -- train.py` runs the training script",
    )


def _is_worth_it(sizing: Sizing, plan: Plan) -> bool:
    model = sizing.job.model
    if plan.task == INFERENCE or not model.hf_config or not model.exact_tensors:
        return False
    if not all(find_spec(name) for name in _needed(model.hf_config)):
        return False
    if not select.is_closed_form(plan):
        return False
    if plan.feed is not None or model.arch.decoder_layers:
        return True
    return (
        sizing.verdict is Verdict.UNCERTAIN
        and {reason.code for reason in sizing.reasons} == {CLOSED_FORM}
        and not besides_tokens(model)
    )


def _needed(fields: object) -> tuple[str, ...]:
    """Packages that build the model."""
    is_diffusers = isinstance(fields, dict) and "_class_name" in fields
    return ("torch", "diffusers" if is_diffusers else "transformers")
