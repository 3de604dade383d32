"""The launched dry run: the real engine on real ranks, through the ``deepspeed`` launcher."""

from zero_sizer.dryrun.launched.parent import run, run_tasks

__all__ = ["run", "run_tasks"]
