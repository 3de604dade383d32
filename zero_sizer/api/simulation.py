"""``simulate`` with the errors of every other question."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from zero_sizer.api.errors import job_error
from zero_sizer.dryrun.simulated import session
from zero_sizer.errors import ZeroSizerError

if TYPE_CHECKING:
    simulate = session.simulate
else:

    @contextmanager
    @functools.wraps(session.simulate)
    def simulate(**options: Any) -> Iterator[session.Session]:
        """Simulates a GPU inside, and raises ``JobError`` where that cannot begin."""
        with ExitStack() as stack:
            try:
                entered = stack.enter_context(session.simulate(**options))
            except ZeroSizerError as error:
                raise job_error(error) from None
            yield entered
