"""Runs scripts that standard input names, each in a fork of a process that imported all once."""

import atexit
import contextlib
import json
import os
import sys
from importlib import import_module
from pathlib import Path

from zero_sizer.dryrun.simulated.script import main
from zero_sizer.simulator.simulation import Rank, simulated
from zero_sizer.util.gc_paused import keep_old_objects


def run() -> None:
    """``imports``, then the ``questions``, each with the variables of its launcher."""
    jobs = json.load(sys.stdin)
    with simulated(Rank(world_size=8, local_world_size=8)):  # once, for every fork
        for name in jobs["imports"]:
            with contextlib.suppress(ImportError):
                import_module(name)
        from deepspeed.module_inject import auto_ep_layer
        from deepspeed.runtime.zero import stage3
        from deepspeed.runtime.zero.muon import muon_optimizer
        from transformers import AutoModelForCausalLM, HfArgumentParser, LlamaForCausalLM, Trainer

        del auto_ep_layer, muon_optimizer, stage3
        del AutoModelForCausalLM, HfArgumentParser, LlamaForCausalLM, Trainer
    keep_old_objects()  # forks share what was imported: collecting it would copy it into each
    from zero_sizer.simulator import handed_on

    for question, environment in jobs["questions"]:
        learned, known = Path(question + ".learned"), handed_on.counted()
        child = os.fork()
        if not child:
            os.environ.update(environment)
            atexit._clear()  # what this process does at its end is its own
            main(question, question + ".reply")
            handed_on.write(learned, known)
            atexit._run_exitfuncs()
            os._exit(0)
        os.waitpid(child, 0)
        if learned.exists():
            handed_on.read(learned)


if __name__ == "__main__":
    run()
    sys.exit(0)  # a fork of the server ends well only if it says so
