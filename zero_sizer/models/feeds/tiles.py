"""Tiles that processors cut an image into, by its size."""

from collections.abc import Iterator
from fractions import Fraction

_MOST_INTERNVL = 12  # max_patches of its preprocessor_config.json
_MOST_LLAMA4 = 16


def internvl(height: int, width: int, tile: int) -> int:
    """Tiles of the image, and the whole once more where there are several.

    The grid whose proportions are nearest to the image's, of several the largest that covers at
    most twice its area (transformers 5.23 got_ocr2/image_processing_got_ocr2.py:86-121).

    Args:
        height: of the image, pixels.
        width: likewise.
        tile: side of one tile, pixels.
    """
    best, nearest = (1, 1), Fraction(2**60)
    for columns, rows in sorted(_grids(_MOST_INTERNVL), key=lambda grid: grid[0] * grid[1]):
        away = abs(Fraction(width, height) - Fraction(columns, rows))
        covers = height * width * 2 > tile * tile * columns * rows
        if away < nearest or (away == nearest and covers):
            best, nearest = (columns, rows), away
    return _with_whole(best)


def llama4(height: int, width: int, tile: int) -> tuple[int, int]:
    """(rows, columns) of the canvas that an image is laid on, whole or as little shrunk as may be.

    Of those that take it alike the smallest (transformers 5.23 llama4/image_processing_llama4.py,
    ``get_best_fit``).
    """

    def scale(grid: tuple[int, int]) -> Fraction:
        return min(Fraction(grid[0] * tile, height), Fraction(grid[1] * tile, width))

    def rank(grid: tuple[int, int]) -> tuple[bool, Fraction, int]:
        found = scale(grid)
        return found < 1, found if found >= 1 else -found, grid[0] * grid[1]

    return min(_grids(_MOST_LLAMA4), key=rank)


def _grids(most: int) -> Iterator[tuple[int, int]]:
    for first in range(1, most + 1):
        for second in range(1, most // first + 1):
            yield first, second


def _with_whole(grid: tuple[int, int]) -> int:
    tiles = grid[0] * grid[1]
    return tiles + 1 if tiles > 1 else 1
