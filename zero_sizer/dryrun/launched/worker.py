"""Worker that the ``deepspeed`` launcher starts on every rank.

``python -m zero_sizer.dryrun.launched.worker --tasks FILE --out FOLDER --rendezvous FILE``
runs every task of a JSON list, one after the other in the same processes, and writes
``FOLDER/TASK.RANK.json`` for each.
A task that fails writes ``{"error": ...}`` instead. With ``--keep-going`` the next task follows
(every rank fails alike for a config that DeepSpeed refuses); otherwise the process exits with 1.
"""

import argparse
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.task import Task


def main() -> int:
    """Run the tasks; 0 when all of them went through or ``--keep-going``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rendezvous", required=True)
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--local_rank", type=int, default=0)  # the launcher's own argument
    args = parser.parse_args()
    tasks = json.loads(Path(args.tasks).read_text(encoding="utf-8"))
    out = Path(args.out)
    pinned = _start(Path(args.rendezvous))
    for index, task in enumerate(tasks):
        result = _run(task, pinned)
        replies.write(out / f"{index}.{os.environ['RANK']}.json", result)
        if "error" in result and not args.keep_going:
            return 1
    return 0


def _start(rendezvous: Path) -> Any:
    """Meet the other ranks in a file: a port would be open to whoever is on the network."""
    from zero_sizer.dryrun.launched.start import start

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    where = {"init_method": f"file://{rendezvous}", "rank": rank, "world_size": world_size}
    return start(int(os.environ["LOCAL_RANK"]), **where)[0]


def _run(task: dict[str, Any], pinned: Any) -> dict[str, Any]:
    from zero_sizer.dryrun.launched import rank

    run = rank.Run(Task.from_json(task), pinned)
    try:
        return asdict(run.record())
    except Exception as error:
        traceback.print_exc()
        return {**replies.failure(error), "rank": int(os.environ["RANK"])}
    finally:
        run.close()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a peer that is gone must not keep this rank in its clean-up
