"""Which blocks a file of another tool checkpoints, as transformers reads its arguments."""

import pytest

from zero_sizer.job import read as job
from zero_sizer.job.fields import Flags

AX = "base_model: gpt2\ndeepspeed: {zero_optimization: {stage: 2}}\n"
_SOME = '{"use_reentrant": false, "every_n_layers": 8}'


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (f'{{"output_dir": "o", "gradient_checkpointing": true, "deepspeed": {{}},'
         f'"gradient_checkpointing_kwargs": {_SOME}}}', "every-8"),
        (f"{AX}gradient_checkpointing: true\ngradient_checkpointing_kwargs: {_SOME}", "every-8"),
        (f"{AX}gradient_checkpointing: true\n"
         "gradient_checkpointing_kwargs: {use_reentrant: true, offload: true}",
         "offload,reentrant"),
    ],
)  # fmt: skip
def test_blocks_that_are_checkpointed_are_those_of_the_arguments(write, text, about):
    """transformers 5.23 modeling_utils.py:3110; all of them would take a quarter of the memory."""
    assert job.read(write(text), Flags(model="gpt2")).workload.checkpointing_how.about == about
