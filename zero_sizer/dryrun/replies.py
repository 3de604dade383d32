"""What a child tells its parent: a JSON file, whole or not there, and checked all the same."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zero_sizer.dryrun.recording import RankRecord, Recording, from_json, rank_from_json
from zero_sizer.errors import InputError, WitnessError
from zero_sizer.util.files import read_json, write_text

_MAX_BYTES = 2**31  # a trace of every allocation is in it


def write(path: Path, reply: Mapping[str, Any]) -> None:
    """Write a reply; it has its name when all of it is there."""
    write_text(path, json.dumps(reply) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A reply.

    Raises:
        WitnessError: it is none.
    """
    try:
        found = read_json(path, _MAX_BYTES, "a reply")
    except InputError as error:
        raise WitnessError(f"the dry run's reply {error.message}") from None
    if not isinstance(found, dict):
        raise WitnessError("the dry run's reply is no JSON object")
    return found


def recording(reply: Mapping[str, Any]) -> Recording:
    """The recording in a reply.

    Raises:
        WitnessError: it is none.
    """
    try:
        return from_json(reply)
    except ValueError as error:
        raise WitnessError(f"the dry run's reply is no recording: {error}") from None


def rank(reply: Mapping[str, Any]) -> RankRecord:
    """One rank's record in a reply.

    Raises:
        WitnessError: it is none.
    """
    try:
        return rank_from_json(reply)
    except ValueError as error:
        raise WitnessError(f"the dry run's reply is no recording: {error}") from None
