"""A profile traced on the way, where the closed form alone keeps a verdict open."""

from collections.abc import Callable
from importlib.util import find_spec

from zero_sizer import activations
from zero_sizer.errors import ZeroSizerError
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.inputs import besides_tokens
from zero_sizer.sizing import Sizing, size

_CLOSED_FORM = "activations-in-closed-form"
_NEEDED = ("torch", "transformers")


def with_profile(sizing: Sizing, tell: Callable[[str], None]) -> Sizing:
    """Sizes the job again with a profile of its model, traced and kept for later, if that may help.

    Only where nothing else keeps the verdict open, and torch and transformers are installed.

    Args:
        sizing: without the profile.
        tell: is told what is being done, for whoever waits.
    """
    if not _is_worth_it(sizing):
        return sizing
    spec = sizing.job.model
    tell(f"tracing {spec.name}, once")
    try:
        from zero_sizer.tracing.cached import trace_to_cache

        trace_to_cache(spec, tell)
    except (ZeroSizerError, OSError):  # untrainable, or nowhere to write: the closed form stays
        return sizing
    return size(sizing.job)


def _is_worth_it(sizing: Sizing) -> bool:
    model = sizing.job.model
    return (
        sizing.verdict is Verdict.UNCERTAIN
        and {reason.code for reason in sizing.reasons} == {_CLOSED_FORM}
        and bool(model.hf_config)
        and model.exact_tensors
        and not besides_tokens(model)
        and activations.load(model) is None
        and all(find_spec(name) for name in _NEEDED)
    )
