"""The simulated dry run: the installed DeepSpeed's real engine on a GPU that does not exist."""

from zero_sizer.dryrun.simulated.parent import run, run_request, run_requests
from zero_sizer.dryrun.simulated.session import simulate

__all__ = ["run", "run_request", "run_requests", "simulate"]
