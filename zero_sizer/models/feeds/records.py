"""Inputs of a model's forward as plain values, JSON in and out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from typing import Any, Self

from zero_sizer.util.records import dataclass

TOKENS = "s"
"""A dimension of the shape: tokens of a sequence."""
LONGEST = 2**20
PROCESSOR, TRAINER = "processor", "trainer"
"""Who keeps images within their bounds."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images of one sample.

    Attributes:
        count: how many.
        height: pixels; None: as the model's config says.
        width: pixels; None: as the height.
    """

    count: int = 1
    height: int | None = None
    width: int | None = None

    @property
    def about(self) -> str:
        """In the words of ``--images``."""
        size = f",size={self.height}x{self.width or self.height}" if self.height else ""
        return f"{self.count}{size}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Statements of a user about one sample.

    Attributes:
        images: of it, None where nobody says.
        max_pixels: of an image, None where nobody states them.
        min_pixels: of an image, None where nobody states them.
        scaled_by: ``PROCESSOR`` (None too), or ``TRAINER`` before it.
        audio_seconds: of its recording.
        target_len: tokens that the decoder of an encoder-decoder is trained on.
    """

    images: Images | None = None
    max_pixels: int | None = None
    min_pixels: int | None = None
    scaled_by: str | None = None
    audio_seconds: float | None = None
    target_len: int | None = None


NOTHING_SAID = Said()


@dataclass(frozen=True, kw_only=True)
class Input:
    """One tensor.

    Attributes:
        name: keyword of the forward; behind a dot, the key of a mapping that the keyword is.
        shape: of one row; ``TOKENS`` for the sequence.
        rows: that a sample brings; the tensor's first dimension is so many for each.
        once: the rows are those of the whole batch.
        is_integer: token ids and the like; else in the model's dtype.
        begins: (value, how often) in the last dimension of every row, zeros behind it.
    """

    name: str
    shape: tuple[int | str, ...] = ()
    rows: int = 1
    once: bool = False
    is_integer: bool = False
    begins: tuple[tuple[int, int], ...] = ()

    def num_rows(self, samples: int) -> int:
        """First dimension of a batch's tensor."""
        return self.rows if self.once else samples * self.rows

    def num_elements(self, samples: int, tokens: int) -> int:
        """Elements of a batch's tensor."""
        total = self.num_rows(samples)
        for size in self.shape:
            total *= tokens if size == TOKENS else int(size)
        return total

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The input of its JSON values."""
        shape, begins = tuple(values["shape"]), tuple(map(tuple, values["begins"]))
        return cls(**{**values, "shape": shape, "begins": begins})


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Inputs of one sample.

    Attributes:
        inputs: tensors.
        options: further keywords of the forward.
        fewest: tokens that a sequence has at least, such as those of its images; 0: none at all.
        most: tokens that it has at most.
        loops: what runs depends on the number of samples, as where code walks through images.
        calls: of attention that one block makes for it without flash attention, one a window.
        target: input that the output is compared with, where the model computes no loss.
        brief: what a sample brings beside its tokens, in a few words.
        about: the same in one clause.
        measures: lengths of it by name, such as frames and patches (``models.stacked``).
        said: what it follows from, by the name of a flag, in words.
        free: names of the flags that change it.
    """

    inputs: tuple[Input, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    fewest: int = 1
    most: int = LONGEST
    loops: bool = False
    calls: int = 1
    target: str = ""
    brief: str = ""
    about: str = ""
    measures: Mapping[str, int] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    free: tuple[str, ...] = ()

    @property
    def has_tokens(self) -> bool:
        """True if a sample has a sequence of tokens whose length is free."""
        return any(TOKENS in given.shape for given in self.inputs)

    @property
    def taken(self) -> int:
        """Tokens of a sequence that are stated, such as those of its images."""
        rows = [given.begins for given in self.inputs if TOKENS in given.shape]
        return max((sum(count for _, count in begins) for begins in rows), default=0)

    @property
    def left_to_data(self) -> tuple[str, ...]:
        """Flags that only the samples tell: how many images a text has, how long a recording is."""
        of_text = ("images",) if self.has_tokens else ()
        return tuple(name for name in self.free if name in ("audio_seconds", *of_text))

    def to_json(self) -> dict[str, Any]:
        """The feed as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The feed of its JSON values."""
        inputs = tuple(map(Input.from_json, values["inputs"]))
        return cls(**{**values, "inputs": inputs, "free": tuple(values["free"])})


def ids(begins: Sequence[tuple[int, int]] = ()) -> Input:
    """Token ids, ``begins`` in front."""
    return Input(name="input_ids", shape=(TOKENS,), is_integer=True, begins=tuple(begins))


def labels(length: int | str = TOKENS) -> Input:
    """A label for every token."""
    return Input(name="labels", shape=(length,), is_integer=True)
