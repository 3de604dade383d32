"""The ledger beside the simulated engine: model states to the byte, peaks of init and step."""

import parity

from zero_sizer.errors import ZeroSizerError
from zero_sizer.ledger.entries import ENTRIES
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import Moment

STATES = ("parameters", "master_weights", "optimizer_states", "gradients")


def predicted_states(case, moment):
    """Bytes of each kind of model state, by device."""
    allocations = evaluate(ENTRIES, parity.plan_of(case), explain=False)
    return {
        (device, category): sum(
            a.num_bytes
            for a in allocations
            if moment in a.moments and a.device.value == device and a.category.value == category
        )
        for device in ("gpu", "host")
        for category in STATES
    }


def simulated_states(record):
    """Those of a simulated phase."""
    return {(d, c): record.num_bytes(c, d) for d in ("gpu", "host") for c in STATES}


def states_that_differ(case, rank):
    """Model states after init and after a step, where they are not equal."""
    for name, moment in (("init", Moment.READY), ("step", Moment.DONE)):
        found, predicted = simulated_states(rank.last(name)), predicted_states(case, moment)
        if found != predicted:
            yield case.name, name, predicted, found


def differences(cases, *, above):
    """Runs that failed, states that differ, and peaks of init and step that are 1 % off.

    Peaks of at most ``above`` bytes are left out.
    """
    for case, recording in zip(cases, parity.run_batch(cases), strict=True):
        if isinstance(recording, ZeroSizerError):
            yield case.name, str(recording)
            continue
        yield from states_that_differ(case, recording.ranks[0])
        for device, phase, predicted, simulated in parity.compare(case, recording):
            is_told = phase in ("init", "step") and simulated > above
            if is_told and abs(predicted / simulated - 1) > 0.01:
                yield case.name, device, phase, predicted, simulated
