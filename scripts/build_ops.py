"""Compile DeepSpeed's CPU operators ahead of the tests.

DeepSpeed compiles each on first use, which takes minutes and would run into a test's time limit.
They land in ``TORCH_EXTENSIONS_DIR``; what is there already is not built again.
"""

import contextlib
import io
import os
import sys

os.environ["DS_ACCELERATOR"] = "cpu"

from deepspeed.ops.op_builder import cpu

BUILDERS = (
    cpu.CPUAdamBuilder,  # offloaded Adam and AdamW
    cpu.FusedAdamBuilder,  # what "Adam" and "AdamW" become on a CPU accelerator
    cpu.CPUAdagradBuilder,
    cpu.CPULionBuilder,
    cpu.ShareMemCommBuilder,  # every multi-rank run on CPU
)


def main() -> None:
    """Build each operator; the compiler's output is shown only when it fails."""
    for builder in BUILDERS:
        print(f"compiling {builder.NAME}", file=sys.stderr)
        with contextlib.redirect_stdout(io.StringIO()):
            builder().load(verbose=False)


if __name__ == "__main__":
    main()
