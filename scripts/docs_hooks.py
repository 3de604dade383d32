"""Hooks of the documentation site: pages of docs/ as they are, read outside of the repository.

mkdocs calls what is named in mkdocs.yml; nothing here is run by hand.
"""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files of the repository, which the site has not, become their text."""
    return _OUTSIDE.sub(r"\1", markdown)
