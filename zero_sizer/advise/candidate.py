"""One plan that was considered, and what is said of a strategy without any."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from zero_sizer.advise.ladder import Tuning
from zero_sizer.advise.lasting import Use
from zero_sizer.advise.strategy import Strategy
from zero_sizer.hardware.device import Device
from zero_sizer.util.records import dataclass


class Lazily(Mapping[Device, Use]):
    """Peaks that are worked out when the first is asked for: most plans are only timed."""

    def __init__(self, find: Callable[[], Mapping[Device, Use]]) -> None:
        self._find = find

    @cached_property
    def _found(self) -> Mapping[Device, Use]:
        return self._find()

    def __getitem__(self, device: Device) -> Use:
        return self._found[device]

    def __iter__(self) -> Iterator[Device]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One plan that was considered.

    Attributes:
        every: where it checkpoints, of how many blocks one; 1 is all of them.
        nodes: nodes it runs on.
        seconds: predicted time of one optimizer step; 0 when no GPU was named.
        tokens: tokens of one step over all ranks.
        uses: peaks per device.
    """

    strategy: Strategy
    setting: Tuning
    checkpointing: bool
    micro_batch: int
    grad_accum: int
    nodes: int
    world_size: int
    seconds: float
    tokens: int
    uses: Mapping[Device, Use]
    every: int = 1

    @property
    def seconds_per_token(self) -> float:
        """Seconds of a token over all GPUs, by which plans are ranked."""
        return self.seconds / self.tokens

    @property
    def tokens_per_second(self) -> float:
        """Over all GPUs."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def train_batch(self) -> int:
        """Samples of one step."""
        return self.micro_batch * self.grad_accum * self.world_size

    @property
    def rank_key(self) -> tuple[float, int, bool, int, int]:
        """Fastest first; among equals the simplest."""
        simple = (self.strategy.simplicity, self.checkpointing, self.every)
        return (self.seconds_per_token, *simple, len(self.setting.keys))

    @property
    def checkpointed(self) -> str:
        """Blocks that are checkpointed: ``yes``, ``no``, or ``every-2`` and its like."""
        if self.every > 1:
            return f"every-{self.every}"
        return "yes" if self.checkpointing else "no"
