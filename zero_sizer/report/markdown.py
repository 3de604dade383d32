"""The answer of ``check`` as GitHub's Markdown, for a pull request."""

import re
from collections.abc import Iterator

from zero_sizer.answer import Answer
from zero_sizer.report.sheet import Section, Sheet, sheet_of

_STEERS = re.compile(r"([\\`*_\[\]<>|~&$@])")
_MANY = 12  # rows from which a table is folded away


def show(answer: Answer, *, timeline: bool = False) -> None:
    """Print the report; a timeline is a picture, which Markdown has not."""
    show_sheet(sheet_of(answer))


def show_sheet(sheet: Sheet) -> None:
    """Print what is laid out already."""
    first, *others = sheet.reasons or ("",)
    print(f"**{_text(sheet.verdict)}**" + (f": {_text(first)}" if first else ""))
    for reason in others:
        print(f"* {_text(reason)}")
    print(f"\n{_text(sheet.job)}")
    for section in sheet.sections:
        print()
        print("\n".join(_section(section)))


def _section(section: Section) -> Iterator[str]:
    yield f"### {_text(section.title)}\n"
    for line in section.lines:
        yield f"* {_text(line)}" if section.is_list else _text(line)
    if section.heads:
        yield from _table(section)
    if section.code:
        yield f"\n```\n{section.code.rstrip()}\n```"


def _table(section: Section) -> Iterator[str]:
    is_folded = len(section.rows) > _MANY
    yield ""
    if is_folded:
        yield f"<details><summary>{len(section.rows)} rows</summary>\n"
    yield _row(section.heads)
    yield _row(["--:" if i in section.numbers else ":--" for i in range(len(section.heads))])
    for row in section.rows:
        yield _row([_text(cell) for cell in row])
    if is_folded:
        yield "\n</details>"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """Text in which nothing that a file says is markup, a mention or a link."""
    return _STEERS.sub(r"\\\1", " ".join(text.split())).replace("\\@", "@\u200b")
