"""The fastest setting and micro batch of one strategy, by bounds instead of trying each.

Memory grows with the micro batch, so the largest that fits is found by bisection; time per token
falls with it, so none below it is faster. Each rung of a ladder costs at least as much time as the
one before at the same micro batch, so it is worth a look only where it allows a larger one, and
not where even the fastest rung would be too slow at the largest that the most frugal allows. Gains
below ``WORTH_IT`` are none: the model's own error is larger. ``benchmarks/search.py`` holds all of
this against trying everything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.ladder import Ladder, Tuning, finer_shares, other_cuts
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import PASSES, Moment
from zero_sizer.util.records import dataclass

_FEW = 3  # that do not fit, after which faster ones are not tried
WORTH_IT = 0.997
"""Share of the time per token below which another setting is worth writing down."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Questions that can be asked about a candidate.

    Attributes:
        fits: whether it fits.
        is_hopeless: whether no setting and no number of nodes makes its batch fit; cheap.
        host_may_fit: whether host and NVMe take it, as far as is known without its batch; cheap.
        short: devices that are short, and when most is held of each.
        pace: its seconds a token.
        timed: the candidate with its time and peaks.
    """

    fits: Callable[[Candidate], bool]
    is_hopeless: Callable[[Candidate], bool]
    host_may_fit: Callable[[Candidate], bool]
    short: Callable[[Candidate], Mapping[Device, Moment]]
    pace: Callable[[Candidate], float]
    timed: Callable[[Candidate], Candidate]


class Walk:
    """One strategy on one cluster, checkpointed or not.

    Args:
        ladder: its settings.
        sizes: micro batches with their accumulation steps, the smallest first.
        make: the candidate of a setting and a size.
        probe: answers about candidates.
        hints: setting -> place of the largest micro batch that fitted elsewhere; kept up to date.
        is_thorough: try what saves little, too.
    """

    def __init__(
        self,
        ladder: Ladder,
        sizes: Sequence[tuple[int, int]],
        make: Callable[[Tuning, tuple[int, int]], Candidate],
        probe: Probe,
        hints: dict[str, int],
        *,
        is_thorough: bool = False,
    ) -> None:
        self._ladder = ladder
        self._sizes = sizes
        self._make = make
        self._probe = probe
        self._hints = hints
        self._is_thorough = is_thorough
        # with as many steps each, a batch is looked for: its micro batch is to be large
        self._is_free = len(sizes) > 1 and sizes[0][1] == sizes[-1][1]
        self._best: Candidate | None = None

    def best(self, known: Candidate | None, limit: int | None = None) -> Candidate | None:
        """The fastest that fits, or ``known`` where none is faster by enough.

        Args:
            known: a plan to beat.
            limit: place of the largest micro batch that can fit, where that is known.
        """
        self._best = known
        last = len(self._sizes) - 1 if limit is None else limit
        if self._probe.is_hopeless(self._at(self._ladder.fastest, 0)):
            return known
        most, is_too_large = self._first(self._ladder.host, last)
        if is_too_large:
            return self._best  # with more of the states on the GPU it would be larger
        limit = last if most < 0 else most
        for rungs in self._ladder.partial:
            if self._is_slow(rungs[0], limit):
                break  # those after it offload more
            self._first(rungs, limit)
        if self._best is not known and self._best is not None and self._ladder.partial:
            self._best = self._refined(self._best)
        return self._best

    def reach(self) -> int:
        """The place of the largest micro batch that any setting allows; -1 where none fits.

        Of the optimizer's states as many as the host takes leave the GPU, the frugal way.
        """
        ladder = self._ladder
        least = (*ladder.corners, *(ladder.last if self._is_thorough else ()))
        last = len(self._sizes) - 1
        if self._probe.is_hopeless(self._at(ladder.fastest, 0)):
            return -1
        for rungs in (ladder.host, *reversed(ladder.partial)):
            if self._host_may_fit(rungs[-1]):
                found = max(self._most(ladder.both(rungs[-1], rung), -1, last) for rung in least)
                if found >= 0:
                    return found
        return -1

    def may_beat(self, best: Candidate, reach: int) -> bool:
        """False where no setting up to ``reach`` is faster than ``best``, told without a walk."""
        ladder = self._ladder
        host = ladder.partial[0][0] if ladder.partial else ladder.host[0]
        finest = finer_shares(host)[-1:] if ladder.partial else []
        fastest = sum(finest, host) + ladder.fastest
        pace = self._probe.pace(self._at(fastest, reach))
        return pace * WORTH_IT <= best.seconds_per_token

    def _refined(self, best: Candidate) -> Candidate:
        """The same micro batch with the smallest share offloaded that fits, in fine steps."""
        frugal = self._ladder.corners[-1]
        for share in finer_shares(best.setting):
            settings = (best.setting + share, best.setting + frugal + share)
            tried = (replace(best, setting=setting) for setting in settings)
            found = next((plan for plan in tried if self._probe.fits(plan)), None)
            if found is None:
                break
            if self._probe.pace(found) < best.seconds_per_token * WORTH_IT:
                best = self._probe.timed(found)
        return best if self._is_free else self._other_cuts(best)

    def _other_cuts(self, best: Candidate) -> Candidate:
        """Other sub-groups and shares, with the next smaller micro batch too, the slowest first.

        Whole sub-groups are offloaded: with few of them a share may end where it just fits.
        """
        place = next(i for i, (size, _) in enumerate(self._sizes) if size == best.micro_batch)
        tried = []
        for size, steps in self._sizes[max(place - 1, 0) : place + 1]:
            for cut in other_cuts(best.setting):
                plan = replace(best, setting=best.setting + cut, micro_batch=size, grad_accum=steps)
                pace = self._probe.pace(plan)
                if pace < best.seconds_per_token * WORTH_IT:
                    tried.append((pace, plan))
        left = _FEW
        for _, plan in sorted(tried, key=itemgetter(0), reverse=True):
            if self._probe.fits(plan):
                best = self._probe.timed(plan)
            else:
                left -= 1
            if not left:
                break
        return best

    def _first(self, rungs: tuple[Tuning, ...], limit: int) -> tuple[int, bool]:
        """Climb from the first host rung that fits; how far, or whether the GPU is too small.

        Pinning and swap buffers decide whether any micro batch fits, not which; so do sub-groups,
        that change the step alone.
        """
        too_large = set()  # sub-groups with which the GPU is short
        for host in rungs:
            kind = host.values.get("sub_group_size")
            if kind in too_large or self._is_slow(host, limit) or not self._host_may_fit(host):
                continue
            most = self._climb(host, limit)
            if most >= 0:
                return most, False
            corners = (self._ladder.both(host, corner) for corner in self._ladder.corners)
            short = [self._probe.short(self._at(corner, 0)) for corner in corners]
            moments = [found.get(Device.GPU) for found in short]
            if all(moment in PASSES for moment in moments) and not self._fits_cut(rungs[-1]):
                return -1, True
            if all(set(found) == {Device.GPU} for found in short):
                too_large.add(kind)
        return -1, bool(too_large)

    def _fits_cut(self, host: Tuning) -> bool:
        """Whether the smallest micro batch fits with the smallest sub-groups.

        They leave forward and backward as they are, but not the room that the step wants beside
        what is live (``ledger.requests.room_of_gradients``).
        """
        ends = (*self._ladder.corners, *(self._ladder.last if self._is_thorough else ()))
        return any(self._fits_at(self._ladder.both(host, end), 0) for end in ends)

    def _host_may_fit(self, host: Tuning) -> bool:
        return self._probe.host_may_fit(self._at(self._ladder.both(host, self._ladder.fastest), 0))

    def _is_slow(self, host: Tuning, index: int) -> bool:
        """Whether no setting with this host rung is worth it up to this micro batch."""
        if self._best is None:
            return False
        fastest = self._probe.pace(self._at(self._ladder.both(host, self._ladder.fastest), index))
        return fastest > self._best.seconds_per_token * WORTH_IT

    def _climb(self, host: Tuning, limit: int) -> int:
        """Try the GPU's rungs; the place of the largest micro batch that may be worth it."""
        ladder = self._ladder
        fastest = ladder.both(host, ladder.fastest)
        corners = [ladder.both(host, corner) for corner in ladder.corners]
        if self._hints.get(fastest.name, -1) < 0 and not any(self._fits_at(c, 0) for c in corners):
            return self._try_last(host, limit)
        floor = self._try(fastest, -1, limit)
        if floor >= limit or self._is_slow(host, limit):
            return limit
        most, corner = max(((self._most(c, floor, limit), c) for c in corners), key=itemgetter(0))
        if most < 0:
            return self._try_last(host, limit)
        if most > floor and not self._is_slow(host, most):
            self._between(host, corner, floor, most)
        return most

    def _try_last(self, host: Tuning, limit: int) -> int:
        """What is for jobs that nothing else makes fit."""
        rungs = self._ladder.last if self._is_thorough else ()
        return max((self._try(self._ladder.both(host, c), -1, limit) for c in rungs), default=-1)

    def _between(self, host: Tuning, corner: Tuning, floor: int, most: int) -> None:
        """Try what needs more of the GPU than the corner, where its time is worth saving."""
        ladder = self._ladder
        fastest = self._probe.pace(self._at(ladder.both(host, ladder.fastest), most))
        found = self._probe.timed(self._at(corner, most))
        self._take(found)
        if found.seconds_per_token * WORTH_IT <= fastest:
            return
        for group in ladder.gpu:
            ends = (ladder.both(host, rung) for rung in ladder.frugal_of(group))
            if any(self._fits_at(end, floor + 1) for end in ends):
                for rung in group:
                    floor = self._try(ladder.both(host, rung), floor, most)
            if floor >= most:
                break

    def _try(self, setting: Tuning, floor: int, limit: int) -> int:
        """Time the largest micro batch above ``floor`` that fits with a setting."""
        index = self._most(setting, floor, limit)
        if index > floor:
            self._take(self._probe.timed(self._at(setting, index)))
        return max(floor, index)

    def _take(self, found: Candidate) -> None:
        """Keep it where it is faster by enough."""
        best = self._best
        if best is None or found.seconds_per_token <= best.seconds_per_token * WORTH_IT:
            self._best = found

    def _most(self, setting: Tuning, floor: int, limit: int) -> int:
        """The place of the largest micro batch that fits, or ``floor`` where none above it does.

        From where it was for the last number of nodes: most move little.
        """
        low, high = floor, limit + 1  # low fits, high does not
        known, step = self._hints.get(setting.name, low), 1
        if low < known < high:
            low, high = (known, high) if self._fits_at(setting, known) else (low, known)
        is_up = low >= known
        while low + 1 < high:
            middle = (low + high) // 2
            if step:
                middle = min(low + step, middle) if is_up else max(high - step, middle)
            if self._fits_at(setting, middle):
                low, step = middle, 2 * step if is_up else 0
            else:
                high, step = middle, 0 if is_up else 2 * step
        self._hints[setting.name] = low
        return low

    def _fits_at(self, setting: Tuning, index: int) -> bool:
        return self._probe.fits(self._at(setting, index))

    def _at(self, setting: Tuning, index: int) -> Candidate:
        return self._make(setting, self._sizes[index])
