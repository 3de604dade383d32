"""Dimensions over the ranks of ``deepspeed.init_inference`` (deepspeed 0.19.8 tp_shard.py)."""

from typing import NamedTuple

HEADS = ("lm_head", "embed_out")
GRAIN = 64  # DeepSpeedTPConfig.tp_grain_size
_NEAR_EVEN = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")


class Cut(NamedTuple):
    """A cut over ranks.

    Attributes:
        ranks: that share the layers.
        rank: whose slice is meant.
        grain: elements of which a share of the feed-forward and of the head is a multiple.
        kv_heads: by which attention is divided; None where the config has none.
    """

    ranks: int
    rank: int
    grain: int
    kv_heads: int | None

    def width(self, total: int, name: str = "") -> int:
        """Elements of a dimension that the rank holds (``tp_shard.get_shard_size``)."""
        heads = self.kv_heads
        is_even = "mlp" in name or name in HEADS or any(part in name for part in _NEAR_EVEN)
        if heads and total % heads == 0 and not is_even:
            return total // heads * self.share(heads)
        if total < self.grain:
            return self.share(total)
        grains, rest = divmod(total, self.grain)
        return self.share(grains) * self.grain + (rest if self.rank == self.ranks - 1 else 0)

    def share(self, count: int) -> int:
        """The rank's share of things that are not divided; the first ranks have the rest."""
        return count // self.ranks + (self.rank < count % self.ranks)
