"""Where a profile's steps meet a model's parameters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain

from zero_sizer.activations.levels import MicroStep
from zero_sizer.activations.names import Names, Word, containers, join
from zero_sizer.models.spec import ModelSpec
from zero_sizer.timeline.program import Layout, Place, Positions
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity
from zero_sizer.zero.reuse import Visit


def layout_of(
    spec: ModelSpec,
    step: MicroStep,
    leaves: tuple[str, ...],
    asked: tuple[int, ...] = (),
    *,
    reentrant: bool = False,
) -> Layout:
    """The places of a micro step, for the timeline; ``leaves`` are taken as a whole.

    ``asked`` are parameters that the model's own forward asks its modules for. ``reentrant``: a
    block runs again before the backward of any module in it, not where one misses what it saved.

    ``runs`` says where modules begin and have run in forward and recomputation. In backward a
    module begins just before its own backward, so before the first of its gradients is complete.
    One that shares a tied tensor owns the first.

    Raises:
        UnknownNameError: the step is of another model.
    """
    return _of_step(Identity(spec), Identity(step), (leaves, asked, reentrant))


@cached_large(maxsize=1024)
def _of_step(spec: Identity, step: Identity, how: "_How") -> Layout:
    """Steps of other batches have the same layout; comparing labels each time would take longer."""
    rows = tuple(
        (part.blocks, part.first, part.count, part.forward.labels, part.backward.labels)
        for part in step.of.parts
    )
    return _layout(spec, rows, how)


_PASSED = Visit((), begins=False)

_Labels = tuple[tuple[str, str], ...]
_Row = tuple[str, int, int, _Labels, _Labels]
_How = tuple[tuple[str, ...], tuple[int, ...], bool]


@lru_cache(maxsize=64)
def _layout(spec: Identity, rows: tuple[_Row, ...], how: _How) -> Layout:
    leaves, asked, reentrant = how
    names = Names(spec.of, leaves, asked)
    first, *others = (_columns(row, partial(_forward, names, row), 1) for row in rows)
    forward = (_within_model(names, first), *others)
    is_said = any("^" in runs for row in rows for runs, _ in row[4])
    visits = _Visits(names, is_said=is_said, reentrant=reentrant)
    backward = [_columns(row, partial(_backward, visits, row), -1) for row in rows[::-1]]
    return Layout(forward=forward, backward=tuple(backward[::-1]))


def _within_model(names: Names, positions: Positions) -> Positions:
    """The first places, begun by the model itself, which no profile names."""
    (first, *blocks), *others = positions
    return ((first._replace(visits=(names.container(""), *first.visits)), *blocks), *others)


def _columns(row: _Row, places: Callable[[str], Iterator[Place]], order: int) -> Positions:
    """The places of a part's blocks; ``order`` is -1 where the last runs first."""
    blocks, first, count, _, _ = row
    prefixes = [_prefix(blocks, number) for number in range(first, first + count)]
    return tuple(zip(*[tuple(places(prefix)) for prefix in prefixes[::order]], strict=True))


def _forward(names: Names, row: _Row, prefix: str) -> Iterator[Place]:
    found = names.words(prefix, (runs for runs, _ in row[3]))
    for position, ((runs, _), words) in enumerate(zip(row[3], found, strict=True)):
        entered = [] if position else names.enter(prefix)
        yield Place(_label(prefix, runs), (*entered, *names.visits(words)), -1, (), ())


def _label(prefix: str, runs: str) -> str:
    """What a reader is told: the last that begins to run, else what has run."""
    tokens = runs.split()
    begun = [token for token in tokens if not token.startswith(("/", "^"))]
    if tokens and not begun:
        return f"forward after {join(prefix, tokens[-1][1:])}"
    return f"forward of {join(prefix, begun[-1].lstrip('~')) if begun else prefix or 'the model'}"


def _backward(visits: "_Visits", row: _Row, prefix: str) -> Iterator[Place]:
    """A module is fetched where its backward begins.

    Profiles say where. Where none does, it is the first step after whatever was complete or began
    to run before; one whose gradients never become complete there (tied, frozen) is fetched in its
    turn. Recomputation begins when a backward asks for what its module saved, so that module is
    fetched before.
    """
    names = visits.names
    visits.around = frozenset(join(prefix, name) for name in _around_others(row[4]))
    gradients = _Gradients(names, [join(prefix, name) if name else "" for _, name in row[4]])
    passed: list[Visit] = []
    fetched = _fetched(visits, prefix, row)
    lent = visits.lent_to_block(fetched)
    for position, ((runs, completes), met) in enumerate(zip(row[4], fetched, strict=True)):
        index = gradients.index(position)
        label = _backward_label(prefix, runs, completes)
        reduces, makes = gradients.reduced(position), gradients.made(position)
        finished = names.finish(gradients.finished(position))
        spent = names.finish(gradients.spent(position))
        ends = [_PASSED._replace(passed=visit.parameters) for visit in spent]
        ends += [_PASSED._replace(passed=(index,))] if index in names.stacked else []
        met = [*passed, *met]
        if lent:
            met, ends = ([v._replace(within=True) for v in some] for some in (met, ends))
            ends += [_PASSED._replace(passed=lent)] if position == len(fetched) - 1 else []
        yield Place(label, tuple(met), index, reduces, makes, tuple(ends))
        passed = finished


@lru_cache(maxsize=64)
def _around_others(labels: _Labels) -> frozenset[str]:
    """Modules that own parameters and run a module of their own, as experts their activation."""
    words = {token for runs, _ in labels for token in runs.split()}
    around = set()
    for word in words:
        owner = word.lstrip("~/^").rpartition(".")[0]
        while owner and owner not in around:
            around.add(owner)
            owner = owner.rpartition(".")[0]
    owners = {word.lstrip("/^") for word in words if "~" not in word[:2]}
    return frozenset(owners & around)


def _backward_label(prefix: str, runs: str, completes: str) -> str:
    last = runs.split()[-1] if runs else ""
    if last.startswith("^"):
        return f"backward of {join(prefix, last.lstrip('^~'))}"
    if runs and not completes:
        return _label(prefix, runs).replace("forward", "recomputation", 1)
    return f"backward of {join(prefix, completes) or 'the model'}"


def _fetched(visits: "_Visits", prefix: str, row: _Row) -> list[list[Visit]]:
    """The visits of each step of a backward."""
    if any("^" in runs for runs, _ in row[4]) or (visits.is_said and not prefix):
        return _said(visits, prefix, row)
    names = visits.names
    words = names.words(prefix, (runs for runs, _ in row[4]))
    waiting = list(names.with_backward(prefix, (runs for runs, _ in row[3])))
    fetched: list[list[Visit]] = [[] for _ in row[4]]
    fetched[0] += visits.begin()
    begins = 0
    for position, (_, completes) in enumerate(row[4]):
        if words[position]:
            fetched[position] += [] if begins else visits.open(waiting)
            fetched[position] += _recomputed(names, words[position])
            begins = position + 1
        if completes:
            owner = names.unit(join(prefix, completes).rpartition(".")[0])
            for word in _due(waiting, owner):
                fetched[min(begins, position)] += visits.to(word)
            begins = position + 1
    return fetched


def _said(visits: "_Visits", prefix: str, row: _Row) -> list[list[Visit]]:
    """The same where the profile says where the backward of each module begins.

    The module whose backward asks for what recomputation makes stays open while that runs.
    """
    names = visits.names
    fetched: list[list[Visit]] = [[] for _ in row[4]]
    fetched[0] += visits.begin()
    found = names.words(prefix, (runs for runs, _ in row[4]))
    recomputes = visits.reentrant
    if visits.reentrant and any(not word.returns for words in found for word in words):
        fetched[0] += visits.to(Word(prefix, begins=True, owns=False))
        found = _run_again_first(found)
    for met, words, (_, completes) in zip(fetched, found, row[4], strict=True):
        for word in words:
            if word.returns:
                met += visits.to(word)
                continue
            if not recomputes:
                visits.keep_open(fetched)
                recomputes = True
            met += _recomputed(names, [word])
        met += visits.passed(_owner(join(prefix, completes))) if completes else []
    return fetched


def _run_again_first(steps: list[list[Word]]) -> list[list[Word]]:
    """The words where all of a block runs again, to its end, before any backward in it."""
    again = [[word for word in words if not word.returns] for words in steps]
    last = max(number for number, words in enumerate(again) if words)
    open_: dict[str, Word] = {}
    for word in chain.from_iterable(again):
        if word.begins and word.owns:
            open_[word.module] = word._replace(begins=False)
        elif not word.begins:
            open_.pop(word.module, None)
    returns = [word for words in steps[: last + 1] for word in words if word.returns]
    return [*again[:last], [*again[last], *open_.values(), *returns], *steps[last + 1 :]]


def _recomputed(names: Names, words: Iterable[Word]) -> Iterator[Visit]:
    """What runs again."""
    return (visit._replace(recomputes=True) for visit in names.visits(words))


class _Gradients:
    """Which gradients the steps of a block complete; -1 and nothing where there is none."""

    def __init__(self, names: Names, completed: Sequence[str]) -> None:
        self._names = names
        self._owners = [_owner(name) for name in completed]
        self._units = [names.unit(owner) for owner in self._owners]
        self._indices = [self._trainable(name) for name in completed]
        # of each module: the step that completes its last
        self._last = {unit: position for position, unit in enumerate(self._units)}

    def _trainable(self, name: str) -> int:
        index = self._names.parameter(name) if name else -1
        return index if index in self._names.trainable else -1

    def index(self, position: int) -> int:
        """The one that is complete."""
        return self._indices[position]

    def made(self, position: int) -> tuple[int, ...]:
        """Gradients that are made: all of a module that are complete one right after the other."""
        owner = self._owners[position]
        if self._indices[position] < 0 or self._is_same(position - 1, owner):
            return ()
        found = []
        while self._is_same(position, owner):
            found.append(self._indices[position])
            position += 1
        return tuple(found)

    def _is_same(self, position: int, owner: str) -> bool:
        is_inside = 0 <= position < len(self._indices)
        return is_inside and self._indices[position] >= 0 and self._owners[position] == owner

    def finished(self, position: int) -> str:
        """The module whose last gradient is complete; empty where none is."""
        unit = self._units[position]
        return unit if self._indices[position] >= 0 and self._last[unit] == position else ""

    def spent(self, position: int) -> str:
        """The module whose last gradients are made: by then its product has let go what it saved.

        Autograd frees that before any gradient's hook runs (torch 2.13 autograd/engine.cpp,
        ``evaluate_function``).
        """
        made = len(self.made(position))
        unit = self._units[position]
        is_last = bool(made) and position <= self._last[unit] < position + made
        return unit if is_last else ""

    def reduced(self, position: int) -> tuple[int, ...]:
        """Gradients whose hooks run; a leaf's do after its last."""
        index, names, unit = self._indices[position], self._names, self._units[position]
        if index < 0 or not names.is_leaf(unit):
            return (index,) if index >= 0 else ()
        is_last = self._last[unit] == position
        return tuple(i for i in names.owned(unit) if is_last and i in names.trainable)


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


class _Visits:
    """Modules in the order their backward runs, those on the way that own nothing included.

    Each lets ZeRO-3 prefetch once more.

    Attributes:
        names: of the model.
        is_said: the profile says where the backward of modules outside of blocks begins.
        reentrant: see ``layout_of``.
        around: modules of the block that own parameters and run others, beside which they stay.
    """

    def __init__(self, names: Names, *, is_said: bool, reentrant: bool) -> None:
        self.names = names
        self.is_said = is_said
        self.reentrant = reentrant
        self.around: frozenset[str] = frozenset()
        self._outer = ""  # the one of them that is open
        self._inside: set[str] = set()
        self._open: list[Visit] = []  # the end of what is open

    def lent_to_block(self, fetched: Iterable[Iterable[Visit]]) -> tuple[int, ...]:
        """Parameters that run again at the wish of the block itself, whose backward has begun."""
        again = (visit.parameters for met in fetched for visit in met if visit.recomputes)
        return tuple(sorted(set(chain.from_iterable(again)))) if self.reentrant else ()

    def begin(self) -> list[Visit]:
        """The model itself, once."""
        return [] if self._inside else self.to(Word("", begins=True, owns=False))

    def open(self, waiting: list[Word]) -> list[Visit]:
        """Up to the last module of ``waiting`` that saves something, which stays open."""
        found: list[Visit] = []
        while waiting:
            last = waiting.pop()
            found += self.to(last)
            if last.owns or self.names.drops(last.module):
                break
        if found:
            found[-1] = found[-1]._replace(ends=False)
            self._open = [found[-1]._replace(begins=False, ends=True)]
        return found

    def keep_open(self, fetched: list[list[Visit]]) -> None:
        """The module that began last stays open."""
        for met in reversed(fetched):
            if met:
                met[-1] = met[-1]._replace(ends=False)
                self._open = [met[-1]._replace(begins=False, ends=True)]
                return

    def passed(self, owner: str) -> list[Visit]:
        """The end of the module around others, where a gradient of a module outside is complete.

        A router that never runs itself, but is multiplied by, has no other sign of its backward.
        """
        if not self._outer or f"{owner}.".startswith(f"{self._outer}."):
            return []
        over, self._open, self._outer = self._open, [], ""
        return over

    def to(self, word: Word) -> list[Visit]:
        """The visits up to a module."""
        names = self.names
        on_the_way = containers(word.module) if word.module else ()
        entered = [name for name in on_the_way if name not in self._inside]
        left = [name for name in self._inside if name not in (*on_the_way, word.module)]
        over: list[Visit] = []
        if not self._outer or not word.module.startswith(f"{self._outer}."):
            over, self._open, self._outer = self._open, [], ""
        over += [visit for name in left for visit in names.leave(name)]
        self._inside = {*on_the_way, word.module, ""}
        if not word.owns:
            last = names.container(word.module, ends=True)
        else:
            # a backward is over where the input has its gradient (parameter_offload.py:497-526)
            last = names.module(word.module, begins=True, ends=not names.is_lookup(word.module))
            if names.is_held(word.module):
                last = last._replace(ends=False)
            elif last.ends and word.module in self.around:
                last, self._outer = last._replace(ends=False), word.module
                self._open = [last._replace(begins=False, ends=True)]
        return [*over, *map(names.container, entered), last]


def _due(waiting: list[Word], module: str) -> list[Word]:
    """Takes from ``waiting`` (forward order) what backward reaches up to ``module``."""
    for position, word in enumerate(waiting):
        if word.owns and word.module == module:
            due = waiting[position:][::-1]
            del waiting[position:]
            return due
    return []


def _prefix(blocks: str, number: int) -> str:
    return f"{blocks}.{number}" if blocks else ""
