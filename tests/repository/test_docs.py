"""The pages of docs/ are about this code: generated where they can be, checked where not."""

import re
import sys
from pathlib import Path

import pytest

from zero_sizer.ledger import entries

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "scripts"))
import generate_docs  # noqa: E402

PAGES = ("model.md", "ledger.md", "limits.md", "security.md")


def anchors(text: str) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_ledger_page_is_what_the_entries_say():
    """If not: python scripts/generate_docs.py."""
    assert (DOCS / "ledger.md").read_text() == generate_docs.page()


def test_the_ledger_page_has_every_entry():
    text = (DOCS / "ledger.md").read_text()
    missing = [e.name for e in entries.ENTRIES if f"`{e.name}`" not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", (DOCS / page).read_text()):
        path = DOCS / target if target else DOCS / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path.read_text()), f"{target}#{anchor}"


def test_what_check_calls_not_modelled_is_in_the_limits():
    from zero_sizer.checks import parallel

    text = (DOCS / "limits.md").read_text()
    keys = [*parallel._SECTIONS, *parallel._STAGE_3]
    names = [key.removesuffix(".enabled").rpartition(".")[2] for key in keys]
    assert not [name for name in names if f"{name}`" not in text]
