"""docs/articles.md, in both languages, says what the commands beside it say today."""

import re
from pathlib import Path

import generate_articles
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("language", generate_articles.PAGES)
def test_the_page_is_current(language):
    """If not: python scripts/generate_articles.py."""
    assert generate_articles.PAGES[language].read_text("utf-8") == generate_articles.page(language)


def test_both_languages_say_the_same_of_the_same_runs():
    """Sections, commands, and rows with their figures; words differ."""
    english, chinese = (path.read_text("utf-8") for path in generate_articles.PAGES.values())
    for pattern in (r"^## ", r"^\$ .*$", r"\| ([-\d.]+ \| [\d.]+ \| \S+) \|$"):
        found = [re.findall(pattern, text, re.MULTILINE) for text in (english, chinese)]
        assert found[0] == found[1]
        assert len(found[0]) > 10, pattern


def test_no_rule_of_the_articles_is_left_out():
    english = generate_articles.PAGES["en"].read_text("utf-8")
    used = re.findall(
        r"^@row \w+ \| (.*?) \|", (generate_articles.TEXTS / "en.md").read_text(), re.M
    )
    assert {name for name in used if "ratio" in name} == {"ratio 1:1:2", "ratio 1:1:3"}
    for words in ("11bsd + 5bhs²", "19bsd", "÷4, ÷8, ÷N", "12 GB a billion", "50 to 60 GB",
                  "30 to 50 %", "1.2 to 1.3", "uint8", "16, 20 or 24"):  # fmt: skip
        assert words in english
