"""Which of a profile's variants a job runs, and which profile."""

from zero_sizer import activations
from zero_sizer.activations.profile import Profile
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType


def profile_of(plan: Plan, model: ModelSpec) -> Profile | None:
    """The profile of ``model`` that is shipped or was asked for, of this way of running it."""
    found = activations.load(model, plan.feed)
    return None if found is None or (plan.feed is not None and not _knows(found, plan)) else found


def _knows(profile: Profile, plan: Plan) -> bool:
    """Whether a family that is fed more than tokens was traced in this way of running it."""
    return plan.attention in profile.attentions.get(precision_of(plan), ())


def variant_of(plan: Plan) -> str:
    """The precision, and whether ZeRO-3's linear layers run, where they do otherwise."""
    is_mixed = (
        plan.model.base is not None
        and plan.autocast_dtype is None
        and sizes.trained_dtype(plan) is not plan.model_dtype
    )
    return _with_layers(plan, "mixed") if is_mixed else base_variant(plan)


def base_variant(plan: Plan) -> str:
    """The variant of a model of which every weight is trained."""
    return _with_layers(plan, precision_of(plan))


def _with_layers(plan: Plan, precision: str) -> str:
    return f"{precision} zero3" if plan.saves_linear_inputs else precision


def precision_of(plan: Plan) -> str:
    """The variant of a job without ZeRO-3's linear layers."""
    if plan.autocast_dtype is not None:
        return "autocast"
    return "fp32" if plan.model_dtype is DType.FP32 else "bf16"
