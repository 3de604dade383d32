"""Formats of every command's answer: a row of the table adds one to ``--format``."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# Answer (mostly a command) -> format -> function of this package that prints the finished answer.
FORMATS: Mapping[str, Mapping[str, str]] = {
    "check": {
        "text": "text.show",
        "json": "json.show",
        "markdown": "markdown.show",
        "html": "page.show",
    },
    "choose": {
        "text": "advice.show_choice",
        "json": "advice.print_choice",
        "markdown": "choice.show_markdown",
        "html": "choice.show_page",
    },
    "largest": {"text": "largest.show_largest", "json": "largest.print_largest"},
    "size": {
        "text": "fleet.show_fleet",
        "json": "fleet.print_fleet",
        "markdown": "nodes.show_markdown",
        "html": "nodes.show_page",
    },
    "dryrun": {"text": "recording.show", "json": "recording.print_recording"},
    "stopped": {"text": "recording.show_stopped", "json": "recording.print_stopped"},
    "lint": {
        "text": "lint.show",
        "json": "lint.print_json",
        "github": "lint.print_github",
        "sarif": "sarif.print_sarif",
    },
    "diagnose": {"text": "diagnosis.show", "json": "diagnosis.print_diagnosis"},
    "calibrate": {"text": "calibration.show_profile", "json": "calibration.print_profile"},
    "crosscheck": {"text": "crosscheck.show_answer", "json": "crosscheck.print_answer"},
    "carriers": {"text": "cards.show_cards", "json": "cards.print_cards"},
    "inference-carriers": {
        "text": "inference_cards.show_cards",
        "json": "inference_cards.print_cards",
    },
    "gpus": {"text": "listings.show_gpus", "json": "listings.print_gpus"},
    "models": {"text": "listings.show_models", "json": "listings.print_models"},
}


def reporter(command: str, named: str) -> Callable[..., None]:
    """The function that prints a command's answer in a format; only its module is imported."""
    module, _, name = FORMATS[command][named].partition(".")
    found: Callable[..., Any] = getattr(import_module(f"{__package__}.{module}"), name)
    return found
