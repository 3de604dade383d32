"""Description of a model of several stacks (``models.stacked``)."""

from collections.abc import Mapping
from dataclasses import field

from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Stacked:
    """One ``model_type``.

    Attributes:
        heads: classes that are trained; the first is meant where a config names none.
        widths: name -> field, by its path; or several that are multiplied.
        words: fields, by their paths, that decide which operators run.
        rates: fields that drop something where they are above 0.
        lengths: prefix of a stack's widths -> products of measures that its inputs are long.
        pairs: further products of two widths that are sizes of weights.
        depths: list of blocks -> field; of a field that is a list, its length.
        sides: further fields that tensors are shaped by.
        nested: nested config -> its ``model_type`` where it names none.
        told_apart: list of blocks -> field of the numbers of those that see an image whole, where
            others see its windows.
        constant: fields that must have their default.
        alike: field -> (width that it must be, width that it is where nobody says).
        followed: list of blocks -> field that lists those after which something runs outside.
        read: further fields whose defaults are kept.
        same: pairs of widths that every model had that was traced: of others it says nothing.
    """

    heads: tuple[str, ...]
    widths: Mapping[str, "str | tuple[str, ...]"]
    words: tuple[str, ...] = ()
    rates: tuple[str, ...] = ()
    lengths: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = ()
    depths: Mapping[str, str] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)
    nested: Mapping[str, str] = field(default_factory=dict)
    told_apart: Mapping[str, str] = field(default_factory=dict)
    constant: tuple[str, ...] = ()
    alike: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    followed: Mapping[str, str] = field(default_factory=dict)
    read: tuple[str, ...] = ()
    same: tuple[tuple[str, str], ...] = ()

    @property
    def own_lengths(self) -> tuple[str, ...]:
        """Measures that stacks are long."""
        return tuple(length[-1] for lengths in self.lengths.values() for length in lengths)
