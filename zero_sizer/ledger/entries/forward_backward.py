"""Forward and backward at their highest: activations, gathered parameters, gradients in flight.

The values come from the timeline (``zero_sizer.timeline.peaks``), which finds the instant; these
entries say what is alive at it.
"""

from collections.abc import Callable, Mapping

from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import Moment
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline import compose
from zero_sizer.timeline.peaks import Instant, Timeline
from zero_sizer.units import DType

_PARTS: Mapping[str, Callable[[Instant], int]] = {
    "activations": lambda at: at.activations,
    "gathered_parameters": lambda at: at.gathered,
    "gradients": lambda at: at.held.gradients,
    "ipg_buckets": lambda at: at.held.buckets,
    "reduction_copies": lambda at: at.held.copies,
}


def _entry(name: str, category: Category, about: str, source: str) -> tuple[Entry, Entry]:
    """One entry for each pass."""
    num_bytes = _PARTS[name]

    def of(moment: Moment, at: Callable[[Plan], Instant]) -> Entry:
        return Entry(
            name=f"{name}_in_{moment.phase.value}",
            category=category,
            about=about,
            numel=lambda p: num_bytes(at(p)),
            dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
            live=frozenset({moment}),
            source=source,
        )

    return (
        of(Moment.FORWARD, lambda p: compose.timeline_of(p).forward),
        of(Moment.BACKWARD, lambda p: compose.timeline_of(p).backward),
    )


def at_end_of_forward(plan: Plan) -> dict[str, int]:
    """Entry of forward -> its bytes when forward has returned, not at its highest."""
    end = compose.end_of_forward(plan)
    return {f"{name}_in_forward": num_bytes(end) for name, num_bytes in _PARTS.items()}


def totals(found: Timeline) -> dict[Moment, int]:
    """Bytes of all entries below together."""
    return {Moment.FORWARD: found.forward.total, Moment.BACKWARD: found.backward.total}


ENTRIES = (
    *_entry(
        "activations",
        Category.ACTIVATIONS,
        "what the model keeps for backward or is computing, logits and loss included",
        "the model's profile, traced from transformers' own classes; "
        "without one arXiv:2205.05198 section 4.1",
    ),
    *_entry(
        "gathered_parameters",
        Category.PARAMETERS,
        "parameters in use, kept for reuse or prefetched, with their gather buffers",
        "runtime/zero/partitioned_param_coordinator.py:400-664, "
        "runtime/zero/partition_parameters.py:780-801,1329-1371",
    ),
    *_entry(
        "gradients",
        Category.GRADIENTS,
        "gradients produced, kept for this rank, or left by earlier micro batches",
        "runtime/zero/stage_1_and_2.py:1024-1045,1415-1485, runtime/zero/stage3.py:1575-1720",
    ),
    *_entry(
        "ipg_buckets",
        Category.COMMUNICATION,
        "gradient buckets, of full size however small the model",
        "runtime/zero/stage_1_and_2.py:924-932,3256-3280",
    ),
    *_entry(
        "reduction_copies",
        Category.COMMUNICATION,
        "copies of a bucket while it is reduced",
        "runtime/zero/stage_1_and_2.py:2355-2390, runtime/comm/coalesced_collectives.py:90-135, "
        "runtime/engine.py:3795-3839",
    ),
)
