"""Settings without which a plan does not run as it is shown, in words."""

from collections.abc import Iterator, Sequence

from zero_sizer.advise.candidate import Candidate

_RATIO, _SUB_GROUP = "offload_optimizer.ratio", "sub_group_size"


def split_words(candidate: Candidate) -> str:
    """Keys that decide whether the plan fits: how much is offloaded, and in which pieces."""
    keys = candidate.setting.keys
    found = [f"{name}: {keys[name]:,}" for name in (_RATIO, _SUB_GROUP) if name in keys]
    return f" ({', '.join(found)})" if found else ""


def split_lines(plans: Sequence[Candidate]) -> Iterator[str]:
    """A line for each plan that has such keys."""
    for plan in plans:
        words = split_words(plan)
        if words:
            yield f"{plan.strategy.name} needs {words.strip(' ()')}"


def checkpointing_words(candidate: Candidate) -> str:
    """Activation checkpointing of a plan, in words."""
    if candidate.every > 1:
        return f"with activation checkpointing of one block in {candidate.every}"
    return f"{'with' if candidate.checkpointing else 'without'} activation checkpointing"
