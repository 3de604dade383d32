"""All that starts a chosen plan: launcher lines, files, TrainingArguments."""

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Any

from zero_sizer.advise.arguments import training_arguments, unsaid
from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Choice
from zero_sizer.advise.launch import Files, launch_text
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launcher.

    Attributes:
        how: its name.
        file: where to write it; None prints it.
        text: a line, a script or a YAML.
    """

    how: str
    file: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """Launchers and arguments that were asked for beside the config.

    Attributes:
        launches: in the order in which they were asked for.
        arguments: of a Trainer; empty where nothing was chosen.
        arguments_file: where to write them.
        unsaid: what the plan requires of the training code beside.
        missing: files that are not written, because nothing fits.
    """

    launches: tuple[Launch, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    arguments_file: str | None = None
    unsaid: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def is_asked(self) -> bool:
        """True if anything was asked for and can be started."""
        return bool(self.launches) or self.arguments_file is not None


def start_of(
    choice: Choice,
    winner: Candidate,
    asked: Iterable[tuple[str, str | None]],
    files: Files,
) -> Start:
    """The launchers and arguments of the plan to run.

    Raises:
        InputError: nodes that a launcher cannot start alike.
    """
    job = choice.search.job_of(winner)
    stage = winner.strategy.stage
    launches = (
        Launch(
            how=how,
            file=path,
            text=launch_text(
                how, job.cluster, replace(files, launch=path), stage=stage, run=choice.run
            ),
        )
        for how, path in asked
    )
    return Start(
        launches=tuple(launches),
        arguments=training_arguments(job, files.config),
        arguments_file=files.arguments,
        unsaid=unsaid(job.workload),
    )
