"""The moments of a training run at which memory is added up."""

from enum import Enum


class Phase(Enum):
    """Part of the run, in the user's words."""

    INIT = "init"
    FORWARD = "forward"
    BACKWARD = "backward"
    STEP = "step"
    SAVE = "save"
    LOAD = "load"
    PREFILL = "prefill"
    DECODE = "decode"


STEPPING = (Phase.INIT, Phase.FORWARD, Phase.BACKWARD, Phase.STEP)
"""The phases that every dry run goes through."""

GENERATING = (Phase.INIT, Phase.PREFILL, Phase.DECODE)
"""The phases of inference."""


class Moment(Enum):
    """One instant; a phase's peak is the highest of its moments.

    Steady state is meant (from the second optimizer step on) for every moment after ``READY``.
    """

    BUILT = "model built"
    FILLED = "weights filled"
    FLATTEN = "weights being flattened"
    STAGING = "staging buffers being made"
    WRAPPING = "optimizer being wrapped"
    LINKING = "optimizer states linked to parameters"
    READY = "engine ready"
    FORWARD = "forward at its highest"
    BACKWARD = "backward at its highest"
    OVERFLOW = "gradients checked for overflow"
    ORTHOGONALIZE = "Muon's updates made"
    NORM = "gradient norm"
    CAST = "gradients flattened and cast"
    UPDATE = "optimizer update"
    DONE = "after the step"
    SAVED = "model being saved"
    WRITTEN = "optimizer states being saved"
    PREFILL = "prompts being read"
    DECODE = "tokens being generated"
    LOADED = "model being loaded"  # before init; last here, so that of equals init is named

    __hash__ = object.__hash__  # members are unique; Enum's own hash is slow

    @property
    def phase(self) -> Phase:
        """The phase this moment belongs to."""
        return _PHASE[self]


_PHASE = {
    Moment.BUILT: Phase.INIT,
    Moment.FILLED: Phase.INIT,
    Moment.FLATTEN: Phase.INIT,
    Moment.STAGING: Phase.INIT,
    Moment.WRAPPING: Phase.INIT,
    Moment.LINKING: Phase.INIT,
    Moment.READY: Phase.INIT,
    Moment.FORWARD: Phase.FORWARD,
    Moment.BACKWARD: Phase.BACKWARD,
    Moment.OVERFLOW: Phase.STEP,
    Moment.ORTHOGONALIZE: Phase.STEP,
    Moment.NORM: Phase.STEP,
    Moment.CAST: Phase.STEP,
    Moment.UPDATE: Phase.STEP,
    Moment.DONE: Phase.STEP,
    Moment.SAVED: Phase.SAVE,
    Moment.WRITTEN: Phase.SAVE,
    Moment.PREFILL: Phase.PREFILL,
    Moment.DECODE: Phase.DECODE,
    Moment.LOADED: Phase.LOAD,
}

RUNS = frozenset({Moment.PREFILL, Moment.DECODE})
IN_INFERENCE = RUNS | {Moment.BUILT, Moment.FILLED, Moment.READY}
ALWAYS = frozenset(Moment) - RUNS - {Moment.LOADED}
FROM_FLATTEN = ALWAYS - {Moment.BUILT, Moment.FILLED}
FROM_WRAPPING = FROM_FLATTEN - {Moment.FLATTEN}
FROM_LINKING = FROM_WRAPPING - {Moment.STAGING, Moment.WRAPPING}
AFTER_FIRST_STEP = FROM_LINKING - {Moment.LINKING, Moment.READY}
PASSES = frozenset({Moment.FORWARD, Moment.BACKWARD})
STEP = frozenset(m for m in Moment if m.phase is Phase.STEP) - {Moment.DONE}
