"""Commit today's errors against the published measurements, and summarise them in docs/limits.md.

Run it after a change that moves predictions for a good reason, and read the difference:

    python scripts/refresh_published.py
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from support import published, published_outcomes  # noqa: E402


def main() -> None:
    """Rewrite the errors and say which of them moved."""
    path = published.ERRORS
    before = json.loads(path.read_text()) if path.exists() else {}
    errors = published.errors()
    path.write_text(json.dumps(errors, indent=1) + "\n")
    text = published.LIMITS.read_text()
    outcomes = published_outcomes.summary()
    published.LIMITS.write_text(published.with_summary(text, errors, outcomes))
    for name, error in errors.items():
        if before.get(name) != error:
            print(f"{name}: {before.get(name)} -> {error} %")


if __name__ == "__main__":
    main()
