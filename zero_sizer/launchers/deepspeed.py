"""The ``deepspeed`` launcher (deepspeed/launcher/runner.py and launch.py, 0.19.8)."""

from collections.abc import Mapping, Sequence

from zero_sizer.errors import InputError
from zero_sizer.hardware import hostfile
from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.words import number, take

NAME = "deepspeed"
_VALUES = (
    *("hostfile", "include", "exclude", "num_nodes", "num_gpus", "num_accelerators"),
    *("master_port", "master_addr", "node_rank", "launcher", "launcher_args", "autotuning"),
    *("enable_each_rank_log", "bind_core_list", "ssh_port", "venv_script", "log_level"),
)
_FLAGS = (
    *("module", "no_python", "no_local_rank", "no_ssh", "no_ssh_check", "force_multi"),
    *("save_pid", "bind_cores_to_rank", "quiet", "elastic_training"),
)
_SHORT = {"H": "hostfile", "i": "include", "e": "exclude", "q": "quiet", "m": "module"}


def read(words: Sequence[str]) -> Launch:
    """Reads what follows the word ``deepspeed``.

    Raises:
        InputError: an option that it does not have, or hosts with different numbers of GPUs.
    """
    options, rest = take(words, launcher=NAME, values=_VALUES, flags=_FLAGS, short=_SHORT)
    if "no_python" in options:
        raise InputError("--no_python starts a program that is no Python script", where="after --")
    nodes = number(options, "num_nodes", NAME)
    gpus = number(options, "num_gpus", NAME) or number(options, "num_accelerators", NAME)
    if "hostfile" in options or "include" in options:
        hosts = _hosts(options)
        hosts = dict(list(hosts.items())[:nodes]) if nodes else hosts
        nodes = len(hosts)
        gpus = gpus or _same(hosts)
    if rest and "no_local_rank" not in options:
        rest.insert(1, "--local_rank=0")
    return Launch(
        command=tuple(rest),
        module="module" in options,
        launcher=NAME,
        nodes=nodes,
        gpus_per_node=gpus,
    )


def _hosts(options: Mapping[str, str]) -> dict[str, int]:
    """Host -> GPUs, of the hostfile and what ``--include`` and ``--exclude`` leave of it."""
    slots: dict[str, list[int]] = {}
    if "hostfile" in options:
        slots = {host: list(range(n)) for host, n in hostfile.read(options["hostfile"]).items()}
    include, exclude = options.get("include", ""), options.get("exclude", "")
    if include and exclude:
        raise InputError("deepspeed takes --include or --exclude, not both", where="after --")
    if include:
        chosen = {}
        for host, listed in _filter(include):
            known = slots.get(host)
            if "hostfile" in options and known is None:
                raise InputError(f"--include: no host {host!r} in the hostfile", where="after --")
            if listed is None and known is None:
                raise InputError(
                    f"--include {host}: which GPUs it has is not known",
                    remedy="give --hostfile, or name them: host:0,1,2,3",
                    where="after --",
                )
            chosen[host] = listed if listed is not None else known or []
        slots = chosen
    for host, listed in _filter(exclude):
        left = [slot for slot in slots.get(host, []) if listed is not None and slot not in listed]
        slots[host] = left
    return {host: len(left) for host, left in slots.items() if left}


def _filter(text: str) -> list[tuple[str, list[int] | None]]:
    """``worker-0@worker-1:0,2`` -> hosts, and their slots where named."""
    found: list[tuple[str, list[int] | None]] = []
    for spec in filter(None, text.split("@")):
        host, colon, slots = spec.partition(":")
        try:
            found.append((host, [int(slot) for slot in slots.split(",")] if colon else None))
        except ValueError:
            raise InputError(f"{spec!r}: not HOST:SLOT,SLOT", where="after --") from None
    return found


def _same(hosts: Mapping[str, int]) -> int:
    counts = set(hosts.values())
    if len(counts) != 1:
        listed = ", ".join(f"{host} {count}" for host, count in hosts.items()) or "none"
        raise InputError(
            f"the hosts have different numbers of GPUs: {listed}",
            remedy="leave out hosts, or say --num_gpus",
            where="after --",
        )
    return counts.pop()
