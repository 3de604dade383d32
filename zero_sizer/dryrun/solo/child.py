"""One real rank with silent peers: ``python -m zero_sizer.dryrun.solo.child QUESTION REPLY``.

The same engine, loop and measurements as a launched rank; only the process group is torch's fake
one. Its gathers repeat this rank's part and its reductions return it, so values stay finite.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.simulator.patches import peers


def main(question_path: str, reply_path: str) -> int:
    """Runs the task and writes the rank's record, or the error."""
    question = json.loads(Path(question_path).read_text(encoding="utf-8"))
    try:
        reply = _record(question)
    except Exception as error:  # whatever DeepSpeed, torch or the user's model raise
        reply = {"error": f"{type(error).__name__}: {error}"}
    replies.write(Path(reply_path), reply)
    return 3 if "error" in reply else 0


def _record(question: dict[str, Any]) -> dict[str, Any]:
    rank, world_size = question["rank"], question["world_size"]
    variables = peers.rank_environment(
        rank=rank, world_size=world_size, local_world_size=question["local_world_size"]
    )
    with ExitStack() as stack:
        stack.enter_context(peers.environment(variables))
        stack.enter_context(peers.silent_peers(rank=rank, world_size=world_size))
        pinned, device = _start()
        stack.enter_context(_agreement())
        from zero_sizer.dryrun.launched import rank as ranks

        run = ranks.Run(question["task"], pinned)
        record = ranks.as_json(run.record())
    return {**record, "device": device}


def _start() -> tuple[Any, str]:
    """Pin requests on the CPU accelerator (None on a GPU), and the device's name."""
    import deepspeed
    import torch
    from deepspeed.accelerator import get_accelerator

    from zero_sizer.dryrun.launched import cpu
    from zero_sizer.dryrun.measure import PinnedStorages

    accelerator = get_accelerator()
    accelerator.set_device(0)
    on_cpu = accelerator.device_name() == "cpu"
    if on_cpu:
        cpu.prepare(accelerator)
    deepspeed.init_distributed(dist_backend="fake")
    torch.manual_seed(0)
    if not on_cpu:
        return None, str(torch.cuda.get_device_name())
    pinned = PinnedStorages()
    pinned.install(accelerator)
    return pinned, "cpu"


def _agreement() -> Any:
    """Checks that compare values across ranks pass: there is nobody to disagree."""
    from deepspeed.runtime.zero import stage3

    from zero_sizer.simulator.patches.deepspeed import agreeing_peers

    del stage3
    return agreeing_peers()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
