"""The files of a chosen plan, and what in them is not the user's."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Choice
from zero_sizer.advise.emit import Edit, chosen_values, edits, job_values
from zero_sizer.advise.start import Start
from zero_sizer.report.table import show_line, show_table
from zero_sizer.util.terminal import one_line


def config_text(choice: Choice, winner: Candidate) -> str:
    """The DeepSpeed config as JSON."""
    return json.dumps(chosen_values(choice.search, winner), indent=2) + "\n"


def job_text(choice: Choice, winner: Candidate, arguments: argparse.Namespace) -> str:
    """The job as YAML, for ``check``, with what was changed as comments above it."""
    import yaml

    values = job_values(choice, winner, arguments.model)
    for name in ("adapter", "quantization"):
        if getattr(arguments, name) is not None:
            values[name] = getattr(arguments, name)
    if arguments.freeze:
        values["workload"]["freeze"] = arguments.freeze
    notes = [f"# {line}" for line in _lines(edits(choice.search, winner))]
    text: str = yaml.safe_dump(_plain(values), sort_keys=False)
    return "\n".join(["# chosen by zero-sizer; not from the config that was read:", *notes, text])


def _plain(value: Any) -> Any:
    """Mappings and lists as YAML writes them."""
    return json.loads(json.dumps(value, default=str))


def show_emitted(choice: Choice, winner: Candidate, path: str) -> None:
    """Say where the file is, and which keys are not as the user wrote them."""
    found = edits(choice.search, winner)
    print()
    show_line(f"{path} written" + ("; changed in it:" if found else "; nothing had to change"))
    if found:
        show_table(("key", "was", "is", "why"), list(map(edit_row, found)))


def start_mapping(start: Start) -> dict[str, Any]:
    """Launcher lines and arguments as JSON."""
    return {
        "launch": [vars(launch) for launch in start.launches],
        "training_arguments": start.arguments,
        "training_code": list(start.unsaid),
    }


def show_lines(start: Start) -> None:
    """Print the launchers for which no file was named."""
    for launch in start.launches:
        if launch.file is None:
            print()
            print(launch.text.rstrip())


def start_files(start: Start) -> Iterator[tuple[str, str]]:
    """Path and text of each file that starts a plan."""
    for launch in start.launches:
        if launch.file is not None:
            yield launch.file, launch.text
    if start.arguments_file is not None:
        yield start.arguments_file, json.dumps(start.arguments, indent=2) + "\n"


def show_start_files(start: Start) -> None:
    """Say which files start the plan, and what none of them says."""
    for path, _ in start_files(start):
        print()
        show_line(f"{path} written")
    if start.arguments_file is not None and start.unsaid:
        show_line(f"no argument says, the training code does: {', '.join(start.unsaid)}")


def edit_row(edit: Edit) -> tuple[str, str, str, str]:
    """One edit as text: key, before, after and why."""
    before = "-" if edit.before is None else json.dumps(edit.before)
    return edit.key, before, "-" if edit.after is None else json.dumps(edit.after), edit.why


def _lines(found: list[Edit]) -> Iterator[str]:
    for edit in found:
        before = "" if edit.before is None else f" (was {json.dumps(edit.before)})"
        after = "removed" if edit.after is None else json.dumps(edit.after)
        yield one_line(f"{edit.key}: {after}{before}: {edit.why}")


def edit_mapping(edit: Edit) -> dict[str, Any]:
    """One edit as JSON."""
    return {"key": edit.key, "before": edit.before, "after": edit.after, "why": edit.why}
