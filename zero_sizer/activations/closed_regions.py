"""Stretches of a block that run before anything is trained: autograd keeps nothing of them.

No rule says which operators are in there: the base's forward was traced without gradients, too
(where its blocks are recomputed), so what it keeps is the difference of two levels.
"""

from collections.abc import Iterator
from typing import NamedTuple

from zero_sizer.activations.changed_blocks import Rules
from zero_sizer.activations.levels import MicroStep, PartLevels, SectionLevels


class Region(NamedTuple):
    """Modules in a row whose inputs carry no gradient, and whose weights are frozen.

    Attributes:
        modules: in the order in which they run.
        until: the one after them, with whose beginning the region ends.
        num_bytes: what the base keeps for backward of the region, and this does not.
    """

    modules: tuple[str, ...]
    until: str
    num_bytes: int


class Closed(NamedTuple):
    """Modules of a block whose input carries no gradient.

    Attributes:
        names: of all of them.
        regions: where the base was traced without gradients.
        inside: modules of regions that are handed what was made in there.
    """

    names: frozenset[str] = frozenset()
    regions: tuple[Region, ...] = ()
    inside: frozenset[str] = frozenset()

    def ends_at(self, name: str) -> bool:
        """True if a region ends where the module begins."""
        return any(name == region.until for region in self.regions)

    def has_passed(self, name: str) -> bool:
        """True if the module's input was made in a region."""
        return self.ends_at(name) or any(name in region.modules for region in self.regions)


def closed_of(
    rules: Rules, run: list[str], piece: PartLevels, ungraded: MicroStep | None
) -> Closed:
    """Closed modules of the first block that trains something.

    Args:
        rules: of the block.
        run: modules in the order in which they run forward.
        piece: the block of the base.
        ungraded: the base's micro step whose blocks run forward without gradients; None: not known.
    """
    names = rules.without_gradient(run)
    regions = _regions(rules, run, piece, ungraded) if names and ungraded else ()
    inside: set[str] = set()
    for region in regions:
        first = region.modules[0]
        takes_other = rules.is_product(first)
        inside.update(region.modules[takes_other:])
    return Closed(names, regions, frozenset(inside))


def _regions(
    rules: Rules, run: list[str], piece: PartLevels, ungraded: MicroStep
) -> tuple[Region, ...]:
    forward, found = _forward_of(ungraded, piece), []
    if forward is None:
        return ()
    for modules, until in _spans(rules, run):
        graded = _grown(piece.forward, modules[0], until)
        plain = _grown(forward, modules[0], until)
        if graded is not None and plain is not None:
            found.append(Region(tuple(modules), until, max(graded - plain, 0)))
    return tuple(found)


def _spans(rules: Rules, run: list[str]) -> Iterator[tuple[list[str], str]]:
    before, until, is_trained = _split(rules, run)
    if not is_trained:
        return
    if before:
        yield before, until
    beside = [name for name in run if name.rpartition(".")[2] in rules.beside]
    if rules.is_parallel and beside[0] not in (*before, until):
        before, until, _ = _split(rules, beside)
        if before:
            yield before, until


def _split(rules: Rules, run: list[str]) -> tuple[list[str], str, bool]:
    """Modules before the first that is trained, that one, and True; or the last, and False."""
    for number, name in enumerate(run):
        if name in rules.adapted or rules.is_trained(f"{name}.weight"):
            return run[:number], name, True
    return run[:-1], run[-1] if run else "", False


def _forward_of(step: MicroStep, piece: PartLevels) -> SectionLevels | None:
    for part in step.parts:
        if part.blocks == piece.blocks and 0 <= piece.first - part.first < part.count:
            return part.forward
    return None


def _grown(section: SectionLevels, start: str, until: str) -> int | None:
    """Bytes by which a section's level rises from where a module begins to where another does."""
    first, last = _before(section, start), _before(section, until)
    return None if first is None or last is None else last - first


def _before(section: SectionLevels, name: str) -> int | None:
    """Level where a module begins to run."""
    level = 0
    for step in section.steps:
        if name in step.runs.split():
            return level
        level = step.end
    return None
