"""DeepSpeed hostfiles, read by the rules of ``deepspeed/launcher/runner.py`` (0.19.8)."""

import re

from zero_sizer.errors import InputError
from zero_sizer.util.files import read_bytes
from zero_sizer.util.spelling import shown

_ENTRY = re.compile(r"^(\S+)\s+slots=(\d+)")  # the launcher's own pattern: the rest is ignored
_MAX_BYTES = 2**20  # some 50,000 hosts
_MAX_SLOTS = 1024
_EXAMPLE = "one host a line: worker-1 slots=8"


def read(path: str) -> dict[str, int]:
    """Slots (GPUs) by host, in the order of the file, which is the order of the ranks.

    The launcher trains on the local GPUs when the file is missing; here a file that was named
    must be there. A host with 0 slots passes the launcher and is left out, as ``--include``
    leaves it out.

    Raises:
        InputError: unreadable file, a line the launcher refuses, a host named twice, no host.
    """
    slots: dict[str, int] = {}
    first_line: dict[str, int] = {}
    for number, text in enumerate(_lines(path), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{path}:{number}"
        host, count = _entry(line, where)
        if host in slots:
            raise InputError(
                f"host {shown(host)} stands already on line {first_line[host]}; DeepSpeed refuses "
                "this",
                remedy="one line per host, with all its slots",
                where=where,
            )
        slots[host], first_line[host] = count, number
    if not slots:
        raise InputError("no hosts in this hostfile", remedy=_EXAMPLE, where=path)
    used = {host: count for host, count in slots.items() if count}
    if not used:
        raise InputError("every host has 0 slots", remedy=_EXAMPLE, where=path)
    return used


def _lines(path: str) -> list[str]:
    data = read_bytes(path, _MAX_BYTES, "a hostfile")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("not a text file", remedy=_EXAMPLE, where=path) from None
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # as file.readlines() does


def _entry(line: str, where: str) -> tuple[str, int]:
    match = _ENTRY.search(line)
    if match is None:
        # Not shown: a job file that others wrote may name any file of this machine.
        raise InputError("not a hostfile entry", remedy=_EXAMPLE, where=where)
    digits = match.group(2)
    if len(digits) > 9 or int(digits) > _MAX_SLOTS:
        raise InputError(
            f"slots={digits[:12]} is more GPUs than a node can hold", remedy=_EXAMPLE, where=where
        )
    return match.group(1), int(digits)
