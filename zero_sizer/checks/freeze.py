"""Rules about frozen parameters: patterns that name nothing, a model with nothing to train."""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.config.context import Context, Rule
from zero_sizer.findings import Direction, Finding
from zero_sizer.models.changes import freeze


def nothing_matched(context: Context) -> Iterator[Finding]:
    """A loop over named_parameters() passes such a pattern by, and everything trains.

    An error where the pattern is the user's own word; a tool that reads its own file goes on.
    """
    model = context.model
    if model is None or model.freeze is None:
        return
    for pattern in freeze.unmatched(model):
        near = freeze.near(model, pattern)
        like = f", as {near[0]!r} would" if near else ""
        found = (context.warning if model.freeze.is_of_a_tool else context.error)(
            "freeze-matches-nothing",
            "freeze",
            f"{pattern!r} ({model.freeze.origin}) names no parameter of {model.name}"
            f"{like}: what it meant is counted as trained",
            f"is it {' or '.join(near)}?" if near else freeze.HOW,
        )
        yield replace(found, direction=Direction.SAVE, device="gpu")


def nothing_trained(context: Context) -> Iterator[Finding]:
    """DeepSpeed's optimizers refuse an empty list of parameters."""
    model = context.model
    if model is not None and model.freeze is not None and not model.num_trainable:
        yield context.error(
            "nothing-to-train",
            "freeze",
            f"ValueError: every parameter is frozen ({model.freeze.origin}), so there is nothing "
            "to train",
            "freeze less, or add an adapter",
        )


def kept_by_a_tool(context: Context) -> Iterator[Finding]:
    """A tool's switches keep parts of a model from being trained, some of them by default."""
    model = context.model
    if model is None:
        return
    freeze, adapter = model.freeze, model.adapter
    if freeze is not None and freeze.is_of_a_tool:
        yield context.note(
            "frozen-by-tool",
            "freeze",
            f"not trained: {', '.join(freeze.patterns)}, by {freeze.origin}",
            "set the switch to false where they are to be trained, or say --freeze",
        )
    if adapter is not None and adapter.excluded_by:
        yield context.note(
            "frozen-by-tool",
            "adapter",
            f"no adapters on modules that match {adapter.exclude_modules}, by "
            f"{adapter.excluded_by}",
            "set the switch to false where they are to have some",
        )


RULES: tuple[Rule, ...] = (nothing_matched, nothing_trained, kept_by_a_tool)
