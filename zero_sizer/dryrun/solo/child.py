"""One real rank with silent peers: ``python -m zero_sizer.dryrun.solo.child QUESTION REPLY``.

The same engine, loop and measurements as a launched rank; only the process group is torch's fake
one. Its gathers repeat this rank's part and its reductions return it, so values stay finite.
"""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.task import Task
from zero_sizer.simulator.patches import peers
from zero_sizer.util.environment import environment


def main(question_path: str, reply_path: str) -> int:
    """Runs the task and writes the rank's record, or the error."""
    question = json.loads(Path(question_path).read_text(encoding="utf-8"))
    try:
        reply = _record(question)
    except Exception as error:  # whatever DeepSpeed, torch or the user's model raise
        reply = replies.failure(error)
    replies.write(Path(reply_path), reply)
    return 3 if "error" in reply else 0


def _record(question: dict[str, Any]) -> dict[str, Any]:
    rank, world_size = question["rank"], question["world_size"]
    variables = peers.rank_environment(
        rank=rank, world_size=world_size, local_world_size=question["local_world_size"]
    )
    with ExitStack() as stack:
        stack.enter_context(environment(variables))
        stack.enter_context(peers.silent_peers(rank=rank, world_size=world_size))
        from zero_sizer.dryrun.launched.rank import Run
        from zero_sizer.dryrun.launched.start import start

        pinned, device = start(0, dist_backend="fake")
        stack.enter_context(_agreement())
        report = replies.report_to(Path(question["progress"]))
        record = Run(Task.from_json(question["task"]), pinned, report).record()
    return {**asdict(record), "device": device}


def _agreement() -> Any:
    """Checks that compare values across ranks pass: there is nobody to disagree."""
    from deepspeed.runtime.zero import stage3

    from zero_sizer.simulator.patches.deepspeed import agreeing_peers

    del stage3
    return agreeing_peers()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
