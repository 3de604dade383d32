"""Phases of a step by the functions of a stack, and by what ``see_memory_usage`` logged before.

Sources: deepspeed 0.19.8 runtime/engine.py, runtime/zero/stage3.py, stage_1_and_2.py,
partition_parameters.py; torch/autograd; transformers' trainer.py. Older names beside them.
"""

import re
from typing import NamedTuple

from zero_sizer.ledger.moments import Phase

_FRAME = re.compile(r'File "([^"]{1,400})", line [0-9]{1,9}, in ([\w<>.]{1,120})')
_FRAME_OF_RICH = re.compile(r"(?:│\s*)?(/\S{1,400}\.py):[0-9]{1,9}\s{1,40}in\s{1,9}([\w<>]{1,120})")
_FRAME_OF_IPYTHON = re.compile(r"File (\S{1,400}\.py):[0-9]{1,9}, in ([\w<>.]{1,120})")
_USED = re.compile(r"\bMA ([0-9.]{1,12}) GB\s{1,30}Max_MA ([0-9.]{1,12}) GB")
_LABEL = re.compile(
    r"see_memory_usage\]\s{1,9}(.{1,200})$|^(Before|After|DeepSpeedZeRoOffload) .{1,200}$"
)


class Frame(NamedTuple):
    """One call of a stack.

    Attributes:
        file: path as printed.
        function: name, without its class.
    """

    file: str
    function: str


def frame_in(line: str) -> Frame | None:
    """The call that a line of a traceback shows, in Python's form, rich's or IPython's."""
    for pattern in (_FRAME, _FRAME_OF_RICH, _FRAME_OF_IPYTHON):
        match = pattern.search(line)
        if match is not None:
            return Frame(match[1], match[2].rpartition(".")[2])
    return None


_BY_FUNCTION: dict[str, Phase] = {
    **dict.fromkeys(
        (
            *("initialize", "_configure_optimizer", "_configure_zero_optimizer"),
            *("_configure_distributed_model", "_setup_for_real_optimizer"),
            *("initialize_optimizer_states", "_create_fp32_partitions"),
            *("_create_fp16_partitions_with_defragmentation", "_broadcast_model"),
            *("_configure_fp16_optimizer", "_configure_bf16_optimizer", "from_pretrained"),
            *("_load_pretrained_model", "_partition_param", "partition", "get_model"),
            *("deepspeed_init", "prepare", "_prepare_deepspeed", "to_empty"),
        ),
        Phase.INIT,
    ),
    **dict.fromkeys(
        ("backward", "allreduce_gradients", "reduce_ready_partitions_and_remove_grads"),
        Phase.BACKWARD,
    ),
    **dict.fromkeys(
        (
            *("step", "_take_model_step", "_optimizer_step", "optimizer_step"),
            *("unscale_and_clip_grads", "_prepare_sub_group", "get_flat_partition"),
        ),
        Phase.STEP,
    ),
    **dict.fromkeys(
        (
            *("save_checkpoint", "save_16bit_model", "save_model", "_save_checkpoint"),
            *("_zero3_consolidated_16bit_state_dict", "get_state_dict", "save_pretrained"),
            "_consolidated_16bit_state_dict",
        ),
        Phase.SAVE,
    ),
    **dict.fromkeys(
        ("load_checkpoint", "_load_zero_checkpoint", "deepspeed_load_checkpoint"), Phase.LOAD
    ),
}
"""What a function tells wherever it stands; the innermost that tells something counts."""

_LIBRARY = re.compile(r"(?:^|/)(?:deepspeed|torch|accelerate|transformers|peft|trl|lightning)/")
_BACKWARD_FILES = ("torch/autograd/",)
_STEP_FILES = ("torch/optim/", "deepspeed/ops/adam/", "bitsandbytes/optim/")
_FORWARD = ("forward", "compute_loss", "_call_impl", "_wrapped_call_impl")


def phase_of(frames: list[Frame]) -> tuple[Phase | None, str]:
    """The phase that a stack was in, outermost call first, and the function that tells."""
    told: tuple[Phase | None, str] = (None, "")
    for frame in frames:
        file = frame.file.replace("\\", "/")
        if told[0] in (Phase.INIT, Phase.SAVE, Phase.LOAD):
            break  # whatever they call belongs to them
        if any(part in file for part in _BACKWARD_FILES):
            told = (Phase.BACKWARD, frame.function)
        elif frame.function in _BY_FUNCTION and not _is_of_user(frame, file):
            told = (_BY_FUNCTION[frame.function], frame.function)
        elif told[0] is None and any(part in file for part in _STEP_FILES):
            told = (Phase.STEP, frame.function)
        elif frame.function in _FORWARD and told[0] is None:
            told = (Phase.FORWARD, frame.function)
    return told


def _is_of_user(frame: Frame, file: str) -> bool:
    """True for a common name that means something in a library alone."""
    return not frame.function.startswith("_") and not _LIBRARY.search(file)


_BY_LABEL = (
    ("after forward", Phase.BACKWARD),
    ("before forward", Phase.FORWARD),
    ("before backward", Phase.BACKWARD),
    ("after backward", Phase.STEP),
    ("before step", Phase.STEP),
    ("after step", None),
    ("saving", Phase.SAVE),
    ("save", Phase.SAVE),
    ("", Phase.INIT),
)


class Usage(NamedTuple):
    """A line of DeepSpeed's ``see_memory_usage``.

    Attributes:
        label: what it says it is at.
        allocated: bytes; 0 where the figures follow on the next line.
        highest: the most since the line before.
    """

    label: str
    allocated: int
    highest: int


def usage_in(line: str) -> Usage | None:
    """The figures, or the label before them."""
    match = _USED.search(line)
    if match is not None:
        used, highest = (_gib(group) for group in match.groups())
        return Usage("", used, highest)
    match = _LABEL.search(line.strip())
    return Usage((match[1] or match[0]).strip(), 0, 0) if match else None


def _gib(text: str) -> int:
    try:
        return int(float(text) * 2**30)
    except ValueError:  # 1.2.3
        return 0


def phase_after(label: str) -> Phase | None:
    """The phase that begins after a label."""
    low = label.lower()
    return next(phase for words, phase in _BY_LABEL if words in low)
