"""Statements about inference: which words belong to it, and how lengths add up."""

from collections.abc import Mapping

from zero_sizer.config.workload import INFERENCE, TRAINING
from zero_sizer.errors import InputError
from zero_sizer.hardware.assemble import Stated

ONLY = ("prompt", "new_tokens", "batch_size", "cache", "tensor_parallel")
NOT_READ = (
    *("grad_accum", "checkpointing", "loss", "kernels", "num_workers", "prefetch"),
    *("tokens", "samples", "epochs", "freeze", "audio_seconds", "target_len"),
    *("max_pixels", "min_pixels", "scaled_by"),
)
"""Statements about training that say nothing about inference."""


def settled(found: Mapping[str, Stated]) -> dict[str, Stated]:
    """The statements of a workload with one task; of inference, with prompt and new tokens.

    ``seq_len`` is both together.

    Raises:
        InputError: a statement of the other task, or lengths that do not add up.
    """
    if found.get("task", Stated(TRAINING, "")).value != INFERENCE:
        return _of_training(found)
    if "micro_batch" in found:
        raise InputError(
            "says how much is trained at once",
            remedy="state --batch-size (batch_size) for inference",
            where=found["micro_batch"].origin,
        )
    return _with_lengths(dict(found))


def _of_training(found: Mapping[str, Stated]) -> dict[str, Stated]:
    stated = next((found[name] for name in ONLY if name in found), None)
    if stated is not None:
        raise InputError(
            "is about inference",
            remedy="add --task inference (workload: {task: inference}), or leave it out",
            where=stated.origin,
        )
    return dict(found)


def _with_lengths(found: dict[str, Stated]) -> dict[str, Stated]:
    whole, prompt, new = (found.pop(name, None) for name in ("seq_len", "prompt", "new_tokens"))
    if whole is not None:
        if prompt is not None and new is not None:
            if prompt.value + new.value != whole.value:
                raise InputError(
                    f"{prompt.value:,} tokens of the prompt and {new.value:,} new ones are not "
                    f"{whole.value:,}",
                    remedy="leave one of the three out",
                    where=whole.origin,
                )
        elif prompt is not None:
            new = Stated(_rest(whole, prompt, 0), whole.origin)
        elif new is not None:
            prompt = Stated(_rest(whole, new, 1), whole.origin)
        else:
            new = Stated(min(1, whole.value - 1), whole.origin)
            prompt = Stated(whole.value - new.value, whole.origin)
    lengths = {"prompt": prompt, "new_tokens": new}
    return found | {name: item for name, item in lengths.items() if item is not None}


def _rest(whole: Stated, part: Stated, least: int) -> int:
    rest: int = whole.value - part.value
    if rest < least:
        raise InputError(
            f"{whole.value:,} tokens in all, and {part.value:,} already in {part.origin}",
            remedy="--seq-len is the prompt and the new tokens together",
            where=whole.origin,
        )
    return rest
