"""``python -m zero_sizer``."""

import sys

from zero_sizer.cli import main

sys.exit(main())
