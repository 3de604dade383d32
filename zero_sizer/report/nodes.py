"""The answer of ``size`` in sections: as an HTML page, and as Markdown."""

from collections.abc import Iterator

from zero_sizer.advise.fleet import Fleet
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report import fleet as text
from zero_sizer.report import markdown, page
from zero_sizer.report.advice import warnings
from zero_sizer.report.sheet import Section, Sheet
from zero_sizer.report.verdict import WORDS, reason_line

_HEADS = {"ckpt": "checkpointing", "": "plan there, or why there is none"}  # there is room


def show_page(fleet: Fleet) -> None:
    """Print a page of HTML."""
    print(page.page_of_sheet(sheet_of(fleet), command=page.command()))


def show_markdown(fleet: Fleet) -> None:
    """Print Markdown."""
    markdown.show_sheet(sheet_of(fleet))


def sheet_of(fleet: Fleet) -> Sheet:
    """Lays the sizes out."""
    first, *others = (line.strip() for line in text.answers(fleet))
    if fleet.smallest is not None and fleet.verdict is not Verdict.FITS:
        others = [*map(reason_line, fleet.reasons), first, *others]
        first = WORDS[fleet.verdict]
    return Sheet(
        verdict=first[:1].upper() + first[1:],
        kind=fleet.verdict,
        reasons=tuple(others),
        job=text.where(fleet),
        sections=tuple(_sections(fleet)),
    )


def _sections(fleet: Fleet) -> Iterator[Section]:
    yield _table("The best plan on each number of nodes", text.sizes(fleet), name="sizes")
    curve = text.curve(fleet)
    if curve is not None:
        lines = tuple(text.goal_lines(fleet))
        yield _table("What more nodes bring", curve, name="curve", lines=lines)
    yield _table("The fewest that fit", text.fewest(fleet), name="fewest")
    if fleet.to_buy:
        lines = (text.BUYS,)
        yield _table("Hosts to buy", text.to_buy(fleet), name="buy", lines=lines)
    notes = (*text.assumed(fleet), *warnings(fleet.search))
    yield Section(title="Notes", lines=notes, is_list=True)


def _table(title: str, found: text.Table, *, name: str, lines: tuple[str, ...] = ()) -> Section:
    return Section(
        title=title,
        name=name,
        lines=lines,
        heads=tuple(_HEADS.get(head, head) for head in found.heads),
        rows=tuple(map(tuple, found.rows)),
        numbers=found.right,
    )
