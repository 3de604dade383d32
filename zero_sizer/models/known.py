"""Models that were asked about before, so that equal ones are one object."""

from zero_sizer.models.spec import ModelSpec

_MOST = 8  # models that somebody compares
_met: list[ModelSpec] = []


def known(spec: ModelSpec) -> ModelSpec:
    """The equal model that was met before, if it was one of the last; else the model itself.

    Each question reads its model anew, and what is worked out of a model is kept by the very
    object: a loop over configs would work it out, and keep it, once a config.
    """
    found = next((met for met in tuple(_met) if met is spec or met == spec), None)
    if found is not None:
        return found
    _met.append(spec)
    del _met[:-_MOST]
    return spec
