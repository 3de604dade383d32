"""Simulated runs with nothing remembered and nothing shortened.

    python -m support.plainly REQUESTS.json FOLDER

As ``zero_sizer.dryrun.simulated.child``, but torch is asked for the answer of every operator, each
time, and DeepSpeed and torch run as they are installed.
"""

import sys

from zero_sizer.dryrun.simulated import child
from zero_sizer.simulator import device

device.register(local_world_size=2)  # before torch

from zero_sizer.simulator import mode  # noqa: E402 (imports torch)
from zero_sizer.simulator.patches import questions  # noqa: E402


def _ask(simulated, operator, types, args, kwargs):
    return simulated.ask(operator.func, types, args, kwargs)


def _answer(simulated, operator, types, args, kwargs):
    answer = operator.answer or (mode._pinned if kwargs.get("pin_memory") else None)
    if answer is not None:
        return answer(simulated, operator.func, args, kwargs)
    return _ask(simulated, operator, types, args, kwargs)


def _operator(simulated, func):
    """An operator without a shorter way for plain views."""
    found = _known(simulated, func)
    found.plain_view = False
    return found


_known = mode.SimulatedMode._operator

if __name__ == "__main__":
    mode.SimulatedMode._operator = _operator
    mode.SimulatedMode._answered = _answer
    mode.SimulatedMode._remembered = _ask
    questions.install = questions.install_in_engine = lambda patches: None
    sys.exit(child.main(*sys.argv[1:3]))
