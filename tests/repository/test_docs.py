"""The pages of docs/ are about this code: generated where they can be, checked where not."""

import re
from pathlib import Path

import generate_docs
import pytest
from support.plans import make_job

from zero_sizer import models
from zero_sizer.advise.planned import plan_or_errors
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import Category, Entry, evaluate
from zero_sizer.ledger.moments import FROM_WRAPPING
from zero_sizer.plan import sizes
from zero_sizer.zero.partition import tensor_partition

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

PAGES = tuple(sorted(path.name for path in DOCS.glob("*.md")))


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


def test_the_example_of_the_architecture_page_is_an_entry():
    """Its key is made up: a field of the plan that exists stands in for it."""
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "architecture.md").read_text(), re.S)
    names = {
        "Category": Category,
        "Entry": Entry,
        "FROM_WRAPPING": FROM_WRAPPING,
        "sizes": sizes,
        "tensor_partition": tensor_partition,
    }
    entry = eval(code.replace("p.some_key", "p.contiguous_gradients"), names)  # noqa: S307
    job = make_job({"zero_optimization": {"stage": 1}}, models.load("gpt2"), 8, seq_len=64)
    plan = plan_or_errors(job)[0]
    (found,) = evaluate((entry,), plan)
    assert found.num_bytes == -(-sizes.num_trainable(plan) // 8) * plan.itemsize
    assert "zero_optimization.contiguous_gradients" in found.keys
