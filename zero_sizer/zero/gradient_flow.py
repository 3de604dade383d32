"""Gradients and their buckets while backward produces them, parameter by parameter.

Follows the hooks of deepspeed 0.19.8: runtime/zero/stage_1_and_2.py:924-1045 (buckets, gradients
of this rank), 1415-1485 (hook), 1557-1700 and 2355-2390 (reduction);
runtime/zero/stage3.py:1575-1720, 2007-2060 (hook, reduce-scatter, offload);
runtime/engine.py:3795-3870 (stage 0).

When a bucket is reduced does not depend on the number of ranks; what its reduction copies and what
of it the rank keeps does (``zero_sizer.zero.reduction``).
"""

from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from zero_sizer.util.records import dataclass
from zero_sizer.zero import after_backward


class Scheme(Enum):
    """How gradients are reduced."""

    AFTER = "after backward, bucket by bucket"  # stage 0, BF16_Optimizer
    DEFERRED = "after backward, through the ZeRO bucket"  # stage 1 without overlap_comm
    HOOKED = "as they are produced, through the ZeRO bucket"  # stage 2, stage 1 with overlap_comm
    SCATTERED = "as they are produced, reduce-scattered"  # stage 3

    __hash__ = object.__hash__  # members are unique; Enum's own hash is slow


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules that decide the flow on any rank of any number; sizes in bytes per element.

    Attributes:
        scheme: how gradients are reduced.
        itemsize: of a gradient that waits for its reduction.
        made_itemsize: of one as backward makes it; where that differs, its hook casts it
            (stage_1_and_2.py:1234-1240).
        bucket_itemsize: of the bucket; 0 without ``contiguous_gradients``. Where gradients are
            reduced after backward: of what is reduced.
        bucket_numel: elements of the bucket (``reduce_bucket_size``).
        num_buckets: buckets allocated with the first gradient (stages 1 and 2).
        adds_in_place: a gradient is added to the one that is there, or dropped at once.
        buffers_held: earlier micro steps left the buckets allocated.
        keeps_large: a reduced gradient too large for the bucket stays (stage 1; stage 2 frees it).
        whole_groups: gradients of a group are reduced as one tensor (``BF16_Optimizer``).
        clones_large: one is copied when its hook runs (offload, stage_1_and_2.py:1444-1446).
        frees_late: reduced gradients that lie in no buffer go when the next are reduced
            (``overlap_comm``, stage_1_and_2.py:2264-2267, 2418-2424).
    """

    scheme: Scheme
    itemsize: int
    made_itemsize: int
    bucket_itemsize: int = 0
    bucket_numel: int = 0
    num_buckets: int = 0
    adds_in_place: bool
    buffers_held: bool = False
    keeps_large: bool = False
    clones_large: bool = False
    whole_groups: bool = False
    frees_late: bool = False

    @property
    def is_loose(self) -> bool:
        """True if gradients wait for the ZeRO bucket in no buffer (``contiguous_gradients``)."""
        return not self.bucket_itemsize and self.scheme in (Scheme.HOOKED, Scheme.DEFERRED)

    def is_large(self, numel: int) -> bool:
        """True if a gradient goes by the bucket's buffer, because it does not fit into it."""
        return bool(self.bucket_itemsize) and numel > self.bucket_numel


@dataclass(frozen=True)
class Tensors:
    """The trainable tensors.

    Attributes:
        groups: parameter indices of each param group, in its order.
        numels: parameter index -> elements.
        apart: those that go through buckets of their own (``torch_autocast``: what it leaves in
            fp32, stage_1_and_2.py:608-616).
    """

    groups: tuple[tuple[int, ...], ...]
    numels: tuple[int, ...]
    apart: frozenset[int] = frozenset()

    def __hash__(self) -> int:
        """Hash of how many there are: the tuples are long, and mostly the same objects."""
        return hash((len(self.groups), len(self.numels), len(self.apart)))


class Completion(NamedTuple):
    """A gradient becomes complete.

    Attributes:
        parameter: its index.
        makes: parameters whose gradients are held from there on; nothing where an earlier one of
            the same module was.
        reduces: parameters whose hooks run then.
    """

    parameter: int
    makes: tuple[int, ...]
    reduces: tuple[int, ...]


Level = tuple[int, int]
"""Bytes of gradients and of buckets beside everything persistent, without what only this rank
keeps; plain, because thousands are made."""


Sizes = tuple[tuple[int, int], ...]
"""Elements of tensors, and how many of them have so many."""


class Flush(NamedTuple):
    """The reduction of a bucket.

    Attributes:
        level: when it begins.
        members: parameter indices.
        numel: elements of all of them.
        sizes: see ``Sizes``.
        buffer: which of two alternating buffers it used (``overlap_comm``).
        is_apart: whether its members are ``Tensors.apart``.
    """

    level: Level
    members: tuple[int, ...]
    numel: int
    sizes: Sizes
    buffer: int = 0
    is_apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The gradients of one backward, in the order in which they become complete.

    Attributes:
        start: before the first gradient.
        before: while each is produced.
        hook: while its hook runs, reductions apart.
        hook_done: reductions before that.
        after: when its hook is over.
        done: reductions before each, and before the end.
        flushes: the reductions, in order; those after the last gradient too.
        closing: levels after the last gradient, with the time of each.
        cleared: of each reduction the one at whose end its gradients go that lie in no buffer; -1
            where all lie in one.
        itemsize: bytes per element of those.
        lag: 1 where they go when the next reduction begins, else 0.
        after_copies: stage 0's buckets: elements made flat, and all elements.

    Time ``2 n`` is when reduction n begins, ``2 n + 1`` when it is over but nothing has gone yet.
    """

    start: Level
    before: tuple[Level, ...]
    hook: tuple[Level, ...]
    hook_done: tuple[int, ...]
    after: tuple[Level, ...]
    done: tuple[int, ...]
    flushes: tuple[Flush, ...]
    closing: tuple[tuple[Level, int], ...]
    cleared: tuple[int, ...]
    itemsize: int
    lag: int
    after_copies: tuple[tuple[int, int], ...]

    @cached_property
    def totals(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Bytes of ``before``, ``hook`` and ``after``."""
        before, hook, after = (
            tuple(map(sum, levels)) for levels in (self.before, self.hook, self.after)
        )
        return before, hook, after

    def time(self, done: int) -> int:
        """Time after so many reductions, before the next."""
        return 2 * done - self.lag

    @cached_property
    def most(self) -> tuple[int, ...]:
        """The highest of each of ``totals``."""
        return tuple([max(levels, default=0) for levels in self.totals])

    @cached_property
    def closing_totals(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bytes of ``closing``, and the time of each."""
        levels, times = zip(*self.closing, strict=True)
        return tuple(map(sum, levels)), times

    @cached_property
    def most_closing(self) -> int:
        """The highest of ``closing``."""
        return max(self.closing_totals[0])

    @cached_property
    def flush_totals(self) -> tuple[int, ...]:
        """Bytes when each reduction begins."""
        return tuple(sum(flush.level) for flush in self.flushes)

    @cached_property
    def kinds(self) -> tuple[tuple[tuple[Sizes, bool], ...], tuple[int, ...]]:
        """Kinds of reductions: sizes, and whether they are apart; the number of each's kind."""
        numbers: dict[tuple[Sizes, bool], int] = {}
        found = [numbers.setdefault((f.sizes, f.is_apart), len(numbers)) for f in self.flushes]
        return tuple(numbers), tuple(found)

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """Elements of the largest tensor of each reduction."""
        return tuple([flush.sizes[-1][0] for flush in self.flushes])

    @cached_property
    def most_together(self) -> int:
        """Most tensors that one reduction takes."""
        return max([len(flush.members) for flush in self.flushes], default=0)

    @cached_property
    def hook_of(self) -> dict[int, int]:
        """Reduction that a hook runs -> the gradient of that hook."""
        return {
            number: position
            for position, (first, done) in enumerate(pairwise(self.done))
            for number in range(first, done)
        }

    @cached_property
    def hook_kinds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First of the hooks of each kind, where reductions of a kind cost alike; each's kind."""
        numbers: dict[Any, int] = {}
        firsts, found, kinds, totals = list[int](), list[int](), self.kinds[1], self.flush_totals
        for position, (first, done) in enumerate(pairwise(self.done)):
            reduced = tuple([(kinds[n], totals[n]) for n in range(first, done)])
            kind = numbers.setdefault((self.totals[1][position], reduced), len(numbers))
            if kind == len(firsts):
                firsts.append(position)
            found.append(kind)
        return tuple(firsts), tuple(found)


def flow(tensors: Tensors, order: tuple[Completion, ...], rules: Rules) -> Flow:
    """Follow a backward in which gradients become complete in ``order``."""
    state = _State(tensors, rules)
    start = state.now()
    for step in order:
        state.produce(step)
    closing = state.finish()
    is_after = rules.scheme is Scheme.AFTER
    groups = [[tensors.numels[i] for i in group] for group in tensors.groups]
    numels = [sum(g) for g in groups] if rules.whole_groups else [n for g in groups for n in g]
    return Flow(
        start=start,
        before=tuple(state.before),
        hook=tuple(state.hook),
        hook_done=tuple(state.hook_done),
        after=tuple(state.after),
        done=tuple(state.done),
        flushes=tuple(state.flushes),
        closing=tuple(closing),
        cleared=tuple(state.cleared),
        itemsize=rules.itemsize,
        lag=int(rules.frees_late),
        after_copies=after_backward.buckets(numels) if is_after else (),
    )


class _State:
    """The bytes held, as the hooks change them."""

    def __init__(self, tensors: Tensors, rules: Rules) -> None:
        self.before: list[Level] = []
        self.hook: list[Level] = []
        self.hook_done: list[int] = []
        self.after: list[Level] = []
        self.done = [0]
        self.flushes: list[Flush] = []
        self.cleared: list[int] = []
        self._going = 0  # bytes of gradients that go when the next reduction begins
        self._tensors = tensors
        self._numels = tensors.numels
        self._rules = rules
        self._open = (_Bucket(), _Bucket(is_apart=True))
        self._buffers = 0
        self._gradients = 0
        if rules.buffers_held:
            self._allocate_buffers()

    def now(self) -> Level:
        return self._gradients, self._buffers

    def produce(self, step: Completion) -> None:
        """A gradient is complete: hooks run, its own or none or those of a whole leaf module."""
        rules, made = self._rules, self._rules.made_itemsize
        self._gradients += sum([self._numels[i] for i in step.makes]) * made
        self.before.append(self.now())
        if rules.scheme in (Scheme.HOOKED, Scheme.DEFERRED):
            self._allocate_buffers()
        highest, done = self._accumulate(self._numels[step.parameter]), len(self.flushes)
        if rules.scheme in (Scheme.HOOKED, Scheme.SCATTERED):
            for other in step.reduces:
                level = self._into_bucket(other, self._numels[other] * rules.itemsize)
                if sum(level) > sum(highest):
                    highest, done = level, len(self.flushes)
        self.hook.append(highest)
        self.hook_done.append(done)
        self.done.append(len(self.flushes))
        self.after.append(self.now())

    def _accumulate(self, numel: int) -> Level:
        """The gradient is cast, and added where one is; the highest on the way."""
        rules = self._rules
        is_cast = rules.made_itemsize != rules.itemsize
        highest = self._gradients + is_cast * numel * rules.itemsize
        kept = 0 if rules.adds_in_place else rules.itemsize
        self._gradients += numel * (kept - rules.made_itemsize)
        return highest if is_cast else self._gradients, self._buffers

    def finish(self) -> list[tuple[Level, int]]:
        """Backward is over: reduce what is left; the levels on the way."""
        rules = self._rules
        levels = [(self.now(), 2 * len(self.flushes) - rules.frees_late)]
        if rules.scheme is Scheme.AFTER:
            return levels
        if rules.scheme is Scheme.DEFERRED:
            for index in (i for group in self._tensors.groups for i in group):
                level = self._into_bucket(index, self._numels[index] * rules.itemsize)
                levels += [(level, 2 * len(self.flushes)), (self.now(), 2 * len(self.flushes))]
        self._flush(*self._open)
        self._gradients -= self._going
        return [*levels, (self.now(), 2 * len(self.flushes))]

    def _allocate_buffers(self) -> None:
        rules = self._rules
        self._buffers = rules.num_buckets * rules.bucket_numel * rules.bucket_itemsize

    def _into_bucket(self, index: int, size: int) -> Level:
        """Reduce what would overflow, then put the gradient in; the highest after that."""
        numel, rules = self._numels[index], self._rules
        bucket = self._open[index in self._tensors.apart]
        if bucket.elements + numel > rules.bucket_numel:
            self._flush(bucket)
            bucket.buffer = 1 - bucket.buffer
        bucket.members.append(index)
        bucket.elements += numel
        if rules.bucket_itemsize and numel <= rules.bucket_numel:
            self._gradients -= size  # copied into the buffer, its own storage freed
            return self.now()
        bucket.loose += size
        clone = size if rules.clones_large and rules.is_large(numel) else 0
        return self._gradients + clone, self._buffers

    def _flush(self, *buckets: "_Bucket") -> None:
        """Reduce buckets; what lies in no buffer goes when all are reduced."""
        full = [bucket for bucket in buckets if bucket.members]
        if full:
            self._gradients -= self._going
            self._going = 0
        last, loose = len(self.flushes) + len(full) - 1, 0
        for bucket in full:
            self._reduce(bucket)
            self.cleared.append(last if bucket.loose else -1)
            loose += bucket.loose
            bucket.members, bucket.elements, bucket.loose = [], 0, 0
        if self._rules.frees_late:
            self._going += loose
        elif not self._rules.keeps_large:
            self._gradients -= loose

    def _reduce(self, bucket: "_Bucket") -> None:
        counts: dict[int, int] = {}  # a Counter would be slower: most buckets hold few
        for index in bucket.members:
            numel = self._numels[index]
            counts[numel] = counts.get(numel, 0) + 1
        sizes = tuple(sorted(counts.items()))
        members, where = tuple(bucket.members), (bucket.buffer, bucket.is_apart)
        self.flushes.append(Flush(self.now(), members, bucket.elements, sizes, *where))


class _Bucket:
    """Gradients that will be reduced together."""

    def __init__(self, *, is_apart: bool = False) -> None:
        self.members: list[int] = []
        self.elements = 0
        self.loose = 0  # bytes of gradients in the list that are not in the buffer
        self.buffer = 0
        self.is_apart = is_apart
