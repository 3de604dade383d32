"""A rank's share of reduction: what differs between ranks, and between numbers of them."""

from typing import NamedTuple

from zero_sizer.util.records import dataclass


class Own(NamedTuple):
    """Differences between ranks.

    Attributes:
        rank: whose memory is meant.
        kept: bytes that hold this rank's reduced gradients, from its first reduction on.
        held: bytes of gradients that earlier micro steps left.
        afterwards: bytes of what is made of all gradients when the last is reduced (Muon).
    """

    rank: int = 0
    kept: int = 0
    held: int = 0
    afterwards: int = 0


NOTHING_OWN = Own()


@dataclass(frozen=True, kw_only=True)
class Share:
    """Parts of the flow that depend on the rank, on how many there are, and on earlier micro steps.

    Attributes:
        ranks: ranks that partitions are cut for.
        own: what depends on the rank.
        cast_itemsizes: bytes per element of the copy in the dtype of communication; 0 where none
            is made. The second is of buckets with ``Tensors.apart``.
        copies: whether reduction makes a flat copy of what it reduces in a buffer.
        by_owner: each owner's slices are reduced on their own.
        offloads: reduced gradients go to the host one by one.
        master_itemsize: bytes per element of the copy that is cast on the way; 0 where none is.
        brought_itemsize: of an offloaded partition that comes back to be added to (stage 3).
        accumulated_itemsize: of a gradient that is accumulated (stage 3).
        divides_first: gradients are divided into copies before they are scattered (stage 3).
        multiplies: what was all-reduced is multiplied into a copy (stage 3), and the partitions of
            what was divided first.
        cut_ranks: ranks that cut partitions from an all-reduced bucket, of which the one with most
            is meant (stage 3).
        part_itemsizes: of the reduced partitions' copies in the dtype that is accumulated, as
            ``cast_itemsizes`` (stage3.py:1943-1944).
        casts_together: those of a bucket stay until all are made (NVMe at stage 3).
        swap_least: bytes of the smallest gradient that is written to NVMe.
        swap_unit: bytes of which what is written is a multiple.
        compact: of which groups what is reduced is added to a buffer of the partition's size,
            tensor by tensor (stage_1_and_2.py:1259-1326).
        compact_itemsize: bytes per element of the copy that is cast for that; 0 where none is.
        keeps_own: of which groups a gradient of this rank that lies in no buffer stays when it is
            reduced; ``Rules.keeps_large`` says it for those of other ranks.
        align_tensors: ``parameter_alignment``.
        deals_tensors: tensors lie in the flat buffers dealt out to the ranks one by one.
        divides: whether ranks divide a tensor that is reduced alone; None: as they do. Set for
            bounds of what other numbers of ranks hold.
    """

    ranks: int = 1
    own: Own = NOTHING_OWN
    cast_itemsizes: tuple[int, int]
    copies: bool = False
    by_owner: bool = False
    offloads: bool = False
    master_itemsize: int = 0
    brought_itemsize: int = 0
    accumulated_itemsize: int = 0
    divides_first: bool = False
    multiplies: bool = False
    cut_ranks: tuple[int, ...] = ()
    part_itemsizes: tuple[int, int] = (0, 0)
    casts_together: bool = False
    swap_least: int = 0
    swap_unit: int = 1
    compact: tuple[bool, ...] = ()
    compact_itemsize: int = 0
    keeps_own: tuple[bool, ...] = ()
    align_tensors: bool = False
    deals_tensors: bool = False
    divides: bool | None = None

    @property
    def is_compact(self) -> bool:
        """True if any group is ``compact``."""
        return any(self.compact)
