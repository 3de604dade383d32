"""``python -m zero_sizer``."""

from zero_sizer.cli import run

run()
