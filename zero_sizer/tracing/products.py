"""Products of widths and lengths that a size may be, of models of several stacks."""

from collections.abc import Iterable, Iterator, Mapping

from zero_sizer.models.stacked import padded, stacks_in
from zero_sizer.models.stacked_row import Stacked

Product = tuple[str, ...]


def products_of(row: Stacked, measures: Mapping[str, int]) -> tuple[Product, ...]:
    """Every product that a size of the row's models may be, the simplest first.

    Args:
        row: whose widths.
        measures: lengths of the feed, by name.
    """
    names = {*row.widths, *measures, *map(padded, row.own_lengths)}
    for stack in stacks_in(row.widths):
        names.add(f"{stack}head_dim")
    found = [p for p in _all(row, tuple(measures)) if all(name in names for name in p)]
    return tuple(dict.fromkeys(found))


def _all(row: Stacked, measures: Iterable[str]) -> Iterator[Product]:
    yield ()
    stacks = list(stacks_in(row.widths))
    for stack in stacks:
        yield from _of_stack(stack)
    for name in row.widths:
        yield (name,)
    yield from row.pairs
    rows = [length for lengths in row.lengths.values() for length in lengths]
    for name in measures:
        yield (name,)
    for stack, lengths in row.lengths.items():
        yield from _at_lengths(stack, lengths, stacks)
    for length in rows:
        for one, other in row.pairs:
            yield (*length, one, other)
        for name in row.widths:
            yield (*length, name)


def _of_stack(stack: str) -> Iterator[Product]:
    """Of a block: hidden states, heads, weights."""
    hidden, ffn, heads = f"{stack}hidden", f"{stack}ffn", f"{stack}heads"
    kv_heads, head_dim = f"{stack}kv_heads", f"{stack}head_dim"
    yield from ((hidden,), (ffn,), (heads, head_dim), (kv_heads, head_dim), (heads,), (kv_heads,))
    yield from ((head_dim,), (hidden, hidden), (hidden, ffn), (hidden, heads, head_dim))
    yield from ((hidden, kv_heads, head_dim), (hidden, head_dim))


def _at_lengths(
    stack: str, lengths: tuple[Product, ...], stacks: Iterable[str]
) -> Iterator[Product]:
    """Of a stack with inputs of its own lengths; another may look at them."""
    for length in lengths:
        yield length
        for product in _of_stack(stack):
            yield (*length, *product)
        last = length[-1]
        yield (*length[:-1], padded(last), f"{stack}heads")
        for product in ((), (f"{stack}heads",), (f"{stack}hidden",), (f"{stack}head_dim",)):
            yield (*length, last, *product)
        for other in stacks:
            yield (*length, f"{other}heads")
            yield (*length, f"{other}hidden")
            yield (*length, f"{other}hidden", f"{other}hidden")
