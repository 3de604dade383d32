"""What the ``deepspeed`` launcher starts on every rank.

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
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies


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
    """Join the process group; pin requests on the CPU accelerator, None on a GPU."""
    import deepspeed
    import torch
    from deepspeed.accelerator import get_accelerator

    from zero_sizer.dryrun.launched import cpu
    from zero_sizer.dryrun.measure import PinnedStorages

    accelerator = get_accelerator()
    accelerator.set_device(int(os.environ["LOCAL_RANK"]))
    on_cpu = accelerator.device_name() == "cpu"
    if on_cpu:
        cpu.prepare(accelerator)
    deepspeed.init_distributed(  # in a file: a port would be open to whoever is on the network
        dist_backend=accelerator.communication_backend_name(),
        init_method=f"file://{rendezvous}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    torch.manual_seed(0)
    if not on_cpu:
        return None
    pinned = PinnedStorages()
    pinned.install(accelerator)
    return pinned


def _run(task: dict[str, Any], pinned: Any) -> dict[str, Any]:
    from zero_sizer.dryrun.launched import rank

    run = rank.Run(task, pinned)
    try:
        return rank.as_json(run.record())
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "rank": int(os.environ["RANK"])}
    finally:
        run.close()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a peer that is gone must not keep this rank in its clean-up
