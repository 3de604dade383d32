"""Parameters that ZeRO-Inference gathers while modules of a forward run."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from zero_sizer.activations import inference
from zero_sizer.hardware.device import Device
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline import compose
from zero_sizer.timeline.program import program_of
from zero_sizer.timeline.unpacking import relative
from zero_sizer.timeline.zero_rules import limits_of
from zero_sizer.util.identity import Identity
from zero_sizer.zero.forms import Padding, highest
from zero_sizer.zero.replay import gathered
from zero_sizer.zero.reuse import Visit
from zero_sizer.zero.swapping import Swapped
from zero_sizer.zero.trace import Known, Limits, Trace


class Gathers(NamedTuple):
    """Bytes of gathered parameters, by number of the block and name of the module within.

    Attributes:
        begins: while a module's parameters are brought.
        running: while it runs.
        after: from when it has run until the next one's are brought; of "" from the block's
            beginning. Cut as ``inference.Point`` says: each module that begins may prefetch.
    """

    begins: dict[tuple[int, str], int]
    running: dict[tuple[int, str], int]
    after: dict[tuple[int, str], list[int]]

    @property
    def most(self) -> int:
        """The most at any time."""
        return max((*self.begins.values(), *map(max, self.after.values())), default=0)

    def at(self, point: inference.Point) -> int:
        """Bytes gathered at a point of a profile; the most, if no such module is known."""
        key = point.block, point.module
        if point.when == inference.AFTER:
            parts = self.after.get(key, [self.most])
            return parts[point.part] if point.parts == len(parts) else max(parts)
        found = self.begins if point.when == inference.BEGINS else self.running
        return found.get(key, self.most)


NOTHING = Gathers({}, {}, {})


def gathers_of(plan: Plan, known: Known) -> Gathers:
    """Gathered parameters of one forward; nothing where none has to be gathered."""
    if plan.stage != 3 or not sizes.gathers_copies(plan):
        return NOTHING
    return _gathers(
        Identity(plan.model),
        *_visits(plan),
        limits_of(plan, known),
        sizes.itemsizes(plan),
        sizes.is_persistent(plan),
        plan.dp_world_size,
        plan.param_device is not Device.GPU,
        known,
        _swapped(plan),
    )


def _swapped(plan: Plan) -> Swapped | None:
    if plan.param_device is not Device.NVME:
        return None
    stays = sizes.is_persistent(plan)
    return Swapped(sizes.is_on_nvme(plan), plan.param_buffer_count, stays)


@lru_cache(maxsize=32)
def _gathers(  # noqa: PLR0913 (all that a cached answer depends on)
    model: Identity,
    names: tuple[str, ...],
    visits: tuple[Visit, ...],
    limits: Limits,
    itemsizes: tuple[int, ...],
    persistent: tuple[bool, ...],
    ranks: int,
    is_parked: bool,
    known: Known,
    swapped: Swapped | None,
) -> Gathers:
    numels = tuple(tensor.numel for tensor in model.of.parameters)
    stays = (False,) * len(numels) if known is Known.NOTHING else persistent
    trace = Trace(
        *(numels, itemsizes, itemsizes, stays, visits, ranks == 1, is_parked),
        is_first=known is not Known.EVERYTHING,
        counts_persistent=known is not Known.EVERYTHING,
        swapped=swapped,
    )
    padding, walk = Padding(ranks), _Walk(model)
    for name, visit, pair in zip(names, visits, gathered(trace, limits), strict=True):
        during, after = (highest(forms, padding) if forms else 0 for forms in pair)
        walk.meet(name, visit, max(during, after), after)
    return walk.found


class _Walk:
    """Sorts what is gathered at each visit by module, as a profile has its levels.

    Attributes:
        found: so far.
    """

    def __init__(self, model: Identity) -> None:
        self.found = Gathers({}, {}, {(inference.BEFORE, ""): [0]})
        self._model = model
        self._keys = [(inference.BEFORE, "")]
        self._outside = inference.BEFORE
        self._runs = False
        self._held = 0

    def meet(self, name: str, visit: Visit, most: int, after: int) -> None:
        """The next visit, of ``name``: the most meanwhile, and what stays."""
        number = next((int(part) for part in name.split(".") if part.isdigit()), self._outside)
        if number >= 0:
            self._outside = inference.HEAD
        if number != self._keys[0][0]:
            self._keys, self._runs = [(number, "")], False
            self.found.after[self._keys[0]] = [self._held]
        if visit.begins and visit.parameters:
            self._begin(number, name, visit, most, after)
        elif self._runs and not visit.parameters:  # inside of a module that owns some as well
            running = self.found.running
            running.update({key: max(running[key], most) for key in self._keys})
        else:
            self._follow(visit, most, after)
        self._held = after

    def _begin(self, number: int, name: str, visit: Visit, most: int, after: int) -> None:
        """A module with parameters, or a leaf that is made of several."""
        owners = dict.fromkeys(self._model.of.parameters[i].module for i in visit.parameters)
        names = owners if len(owners) > 1 else [name]
        self._keys, self._runs = [(number, relative(one)) for one in names], True
        self.found.begins.update(dict.fromkeys(self._keys, most))
        self.found.running.update(dict.fromkeys(self._keys, after))
        if len(self._keys) > 1:
            self.found.after.update({key: [most] for key in self._keys})

    def _follow(self, visit: Visit, most: int, after: int) -> None:
        """A module has run, or one without parameters begins."""
        self._runs = False
        for key in self._keys:
            parts = self.found.after.setdefault(key, [])
            if visit.begins:
                parts += [most, after]
            elif parts:
                parts[-1] = max(parts[-1], most)
            else:
                parts.append(most)


def _visits(plan: Plan) -> tuple[tuple[str, ...], tuple[Visit, ...]]:
    """Modules of a forward in the order in which they run, and their names.

    A container, which has no parameters, bears the name of what runs next in it; a head that is
    tied to an embedding its own.
    """
    visits, count = program_of(compose.places_of(plan)).visits
    forward = visits[:count]
    if not forward:
        return _in_order_of_parameters(Identity(plan.model))
    parameters = plan.model.parameters
    names: list[str] = []
    following = "lm_head"
    tied = {plan.model.parameters[0].module} if plan.model.arch.tied_embeddings else set()
    for visit in forward[::-1]:
        if visit.parameters:
            module = parameters[visit.parameters[0]].module
            is_head = module in tied and following == "lm_head"
            following = "lm_head" if is_head else module
        names.append(following)
    return tuple(names[::-1]), forward


@lru_cache(maxsize=32)
def _in_order_of_parameters(model: Identity) -> tuple[tuple[str, ...], tuple[Visit, ...]]:
    """Of a model that nobody traced."""
    owned: dict[str, list[int]] = {}
    for index, tensor in enumerate(model.of.parameters):
        owned.setdefault(tensor.module, []).append(index)
    if model.of.arch.tied_embeddings and owned:
        owned["lm_head"] = next(iter(owned.values()))
    names = tuple(name for name in owned for _ in range(2))
    visits = [
        visit
        for found in map(tuple, owned.values())
        for visit in (Visit(found), Visit(found, begins=False, ends=True))
    ]
    return names, tuple(visits)
