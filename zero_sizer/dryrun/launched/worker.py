"""Worker that the ``deepspeed`` launcher starts on every rank.

``python -m zero_sizer.dryrun.launched.worker --tasks FILE --out FOLDER [--rendezvous FILE]``
runs every task of a JSON list, one after the other in the same processes, and writes
``FOLDER/TASK.RANK.json`` for each. The ranks meet in the file; over several hosts, which have
none in common, at the launcher's address.
A task that fails writes ``{"error": ...}`` instead. With ``--keep-going`` the next task follows
(every rank fails alike for a config that DeepSpeed refuses); otherwise the process exits with 1.
"""

import argparse
import json
import os
import socket
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zero_sizer.dryrun import replies
from zero_sizer.dryrun.task import Task

_LOCAL = "127.0.0.1"


def main() -> int:
    """Run the tasks; 0 when all of them went through or ``--keep-going``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rendezvous")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--local_rank", type=int, default=0)  # the launcher's own argument
    args = parser.parse_args()
    tasks = json.loads(Path(args.tasks).read_text(encoding="utf-8"))
    out = Path(args.out)
    out.mkdir(exist_ok=True)
    pinned = _start(args.rendezvous)
    report = replies.report_to(out / "progress") if os.environ["RANK"] == "0" else None
    for index, task in enumerate(tasks):
        result = _run(task, pinned, report)
        replies.write(out / f"{index}.{os.environ['RANK']}.json", result)
        if "error" in result and not args.keep_going:
            return 1
    return 0


def _start(rendezvous: str | None) -> Any:
    """Meet the other ranks, in a file where there is one: a port is open to all the network."""
    from zero_sizer.dryrun.launched.start import start

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    master = os.environ["MASTER_ADDR"]
    method = f"file://{rendezvous}" if rendezvous else "env://"  # the launcher's MASTER_ADDR
    where = {"init_method": method, "rank": rank, "world_size": world_size}
    address = _LOCAL if rendezvous else own_address(master)
    return start(int(os.environ["LOCAL_RANK"]), address=address, **where)[0]


def own_address(master: str) -> str:
    """Address of this host on the way to ``master``; nothing is sent."""
    port = int(os.environ["MASTER_PORT"])
    family, kind, protocol, _, where = socket.getaddrinfo(master, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(where)
        return str(probe.getsockname()[0])


def _run(task: dict[str, Any], pinned: Any, report: replies.Report | None) -> dict[str, Any]:
    from zero_sizer.dryrun.launched import rank

    run = rank.Run(Task.from_json(task), pinned, report)
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
