"""Sizes as sums of products of widths: what they are, and which are the largest somewhere."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from math import prod

import torch

from zero_sizer.errors import WitnessError
from zero_sizer.tracing import fitted, symbolic
from zero_sizer.tracing.symbolic import Poly
from zero_sizer.units import round_up

Products = tuple[tuple[str, ...], ...]
UNIT = 40  # coefficients are fortieths: a part of a head may be rotated
PRODUCTS: Products = (
    (),
    ("hidden",),
    ("ffn",),
    ("heads", "head_dim"),
    ("kv_heads", "head_dim"),
    ("vocab",),
    ("heads",),
    ("kv_heads",),
    ("head_dim",),
    ("experts",),
    ("experts_per_token",),
    ("experts_per_token", "hidden"),
    ("experts_per_token", "expert_ffn"),
    ("experts_per_token", "hidden", "expert_ffn"),
    ("hidden", "hidden"),
    ("hidden", "ffn"),
    ("hidden", "heads", "head_dim"),
    ("hidden", "kv_heads", "head_dim"),
    ("hidden", "head_dim"),
    ("hidden", "vocab"),
    ("hidden", "positions"),
    ("experts", "hidden"),
    ("experts", "hidden", "expert_ffn"),
)
ORDER = (1, 2, 3, 0, 4, 5, 7)  # where symbolic's monomials stand in a profile's polynomials
ROUNDED = 6  # stands for one of ``Constants`` there
MOST_CONSTANTS = 96
_ROUNDING = 8 * 512  # bytes: what torch's allocator rounds a few small storages by
_IDS = 16  # bytes a token or patch: two whole numbers, as copies of ids and positions
# Few, or T5's 32 buckets of positions in fp32, or 24 whole numbers of a patch, of which the
# positions of images are made.
MOST_COPIES = 192


class Solver:
    """Finds which widths a size is a product of.

    Args:
        widths: at which the family was traced.
        products: that a size may be.
        is_signed: of two products one may be taken away.
        most: copies of a product that a size may be.
    """

    def __init__(
        self,
        widths: Sequence[Mapping[str, int]],
        products: Products = PRODUCTS,
        *,
        is_signed: bool = False,
        most: int = MOST_COPIES,
    ) -> None:
        self.products = products
        self._is_signed = is_signed
        self._largest = most * UNIT
        self._values = [
            [prod(of[name] for name in product) for of in widths] for product in products
        ]
        self._known: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = {}
        for (one, x), (other, y) in combinations(enumerate(self._values), 2):
            if all((*x, *y)) and len({Fraction(u, v) for u, v in zip(x, y, strict=True)}) == 1:
                self._allow(products[one], products[other], Fraction(x[0], y[0]))

    @staticmethod
    def _allow(one: tuple[str, ...], other: tuple[str, ...], ratio: Fraction) -> None:
        """Equal ones are equal in every model of the structure; of some ffn is 4 x hidden."""
        if ratio != 1 and not (ratio in (4, Fraction(1, 4)) and "ffn" in (*one, *other)):
            raise WitnessError(f"{one} and {other} cannot be told apart at these widths")

    def terms(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """(product, coefficient x ``UNIT``), one or two of them.

        Args:
            sizes: one for each set of widths.

        Raises:
            WitnessError: no such sum gives them all.
        """
        found = self._known.get(sizes)
        if found is None:
            found = self._known[sizes] = self._one(sizes) or self._two(sizes)
        return found

    def _one(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        for product, values in enumerate(self._values):
            if not all(values):
                continue
            ratios = {Fraction(size, value) for size, value in zip(sizes, values, strict=True)}
            ratio = ratios.pop()
            coefficient = None if ratios else self._coefficient(abs(ratio))
            if coefficient is not None:  # negative: 2 x sequence - 1 distances of positions
                return ((product, coefficient if ratio > 0 else -coefficient),)
        return ()

    def _two(self, sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        rows = list(enumerate(self._values))
        for (first, x), (second, y) in combinations(rows, 2):
            divisor = x[0] * y[1] - x[1] * y[0]
            if not divisor or not all((*x, *y)):
                continue
            a = Fraction(sizes[0] * y[1] - sizes[1] * y[0], divisor)
            b = Fraction(x[0] * sizes[1] - x[1] * sizes[0], divisor)
            if any(a * u + b * v != size for u, v, size in zip(x, y, sizes, strict=True)):
                continue
            of_first, of_second = self._of_two(a), self._of_two(b)
            if of_first is not None and of_second is not None:
                return (first, of_first), (second, of_second)
        raise WitnessError(f"sizes that are no product of widths: {sizes}")

    def _of_two(self, ratio: Fraction) -> int | None:
        found = self._coefficient(abs(ratio) if self._is_signed else ratio)
        return -found if found is not None and ratio < 0 else found

    def _coefficient(self, ratio: Fraction) -> int | None:
        scaled = ratio * UNIT
        return int(scaled) if scaled.denominator == 1 and 0 < scaled <= self._largest else None


class Constants:
    """Sizes that neither batch nor sequence change: each is rounded up before they are added."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[tuple[int, int], ...], int] = {}

    def index(self, terms: tuple[tuple[int, int], ...]) -> int:
        """Where the size made of ``terms`` stands among them."""
        found = self.numbers.setdefault(terms, len(self.numbers))
        if found >= MOST_CONSTANTS:
            raise WitnessError("too many constant sizes")
        return found

    def values(self, products: Sequence[int]) -> list[int]:
        """Bytes of each at some widths, ``MOST_CONSTANTS`` of them."""
        found = [
            round_up(sum(c * products[p] for p, c in terms) // UNIT, fitted.BLOCK) * UNIT
            for terms in self.numbers
        ]
        return found + [0] * (MOST_CONSTANTS - len(found))


class Envelope:
    """Which of some levels are the highest somewhere."""

    _BATCHES = (1, 2, 4, 8, 16, 64)
    _SEQUENCES = (64, 256, 512, 1024, 2048, 4096, 8192, 32768, 131072)

    def __init__(
        self,
        realistic: Sequence[Mapping[str, int]],
        constants: Constants,
        products: Products = PRODUCTS,
    ) -> None:
        self._products = [
            [prod(widths[name] for name in product) for product in products] for widths in realistic
        ]
        self._constants = constants
        self._known = -1
        self._samples = torch.zeros(0)
        positions = [
            max(s, widths.get("patches", 0))
            for widths in realistic
            for _ in self._BATCHES
            for s in self._SEQUENCES
        ]
        self._slack = (_ROUNDING + _IDS * torch.tensor(positions, dtype=torch.float64)) * UNIT

    def of(self, levels: Sequence[Poly]) -> Sequence[Poly]:
        """Sizes that no other exceeds wherever a model may be."""
        found = symbolic.undominated(levels)
        if len(found) == 1:
            return found
        values = self._values(found)
        return [found[index] for index in sorted(set(values.argmax(dim=0).tolist()))]

    def covers(self, kept: Sequence[Poly], levels: Sequence[Poly]) -> bool:
        """True if none of ``levels`` exceeds all of ``kept`` by more than copies of ids do."""
        lacks = self._values(levels).amax(dim=0) - self._values(kept).amax(dim=0)
        return bool((lacks <= self._slack).all())

    def _values(self, polys: Sequence[Poly]) -> torch.Tensor:
        if self._known != len(self._constants.numbers):
            self._known = len(self._constants.numbers)
            self._samples = torch.tensor(list(self._rows()), dtype=torch.float64).T
        return torch.tensor(polys, dtype=torch.float64) @ self._samples

    def _rows(self) -> Iterator[list[int]]:
        for products in self._products:
            rounded = self._constants.values(products)
            for b in self._BATCHES:
                for s in self._SEQUENCES:
                    monomials = symbolic.monomials(b, s)
                    yield [m * value for m in monomials for value in products] + rounded


def sparse(poly: Poly, count: int = len(PRODUCTS)) -> list[list[int]]:
    """Terms of a polynomial of ``count`` products, as a family's profile writes them."""
    plain = len(ORDER) * count  # coefficients of a size; those of ``Constants`` follow
    return [
        [ORDER[index // count], index % count, coefficient]
        if index < plain
        else [ROUNDED, index - plain, coefficient]
        for index, coefficient in enumerate(poly)
        if coefficient
    ]
