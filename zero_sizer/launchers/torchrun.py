"""``torchrun``, also as ``python -m torch.distributed.run`` or ``.launch`` (torch 2.13)."""

from collections.abc import Sequence

from zero_sizer.errors import InputError
from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.words import number, take

NAME = "torchrun"
_VALUES = (
    *("nnodes", "nproc_per_node", "rdzv_backend", "rdzv_endpoint", "rdzv_id", "rdzv_conf"),
    *("max_restarts", "monitor_interval", "start_method", "event_log_handler", "role"),
    *("log_dir", "redirects", "tee", "local_ranks_filter", "duplicate_stdout_filters"),
    *("duplicate_stderr_filters", "node_rank", "master_addr", "master_port", "local_addr"),
    *("logs_specs", "numa_binding", "signals_to_handle", "shutdown_timeout"),
)
_FLAGS = ("standalone", "module", "no_python", "run_path", "virtual_local_rank", "use_env")
_SHORT = {"m": "module", "r": "redirects", "t": "tee"}
_ALL = ("gpu", "auto")  # every GPU of the node, however many


def read(words: Sequence[str], *, legacy: bool = False) -> Launch:
    """Reads what follows the word ``torchrun``; ``legacy``: after ``-m torch.distributed.launch``.

    Raises:
        InputError: an option that it does not have, or no number of nodes.
    """
    options, rest = take(words, launcher=NAME, values=_VALUES, flags=_FLAGS, short=_SHORT)
    if "no_python" in options:
        raise InputError("--no_python starts a program that is no Python script", where="after --")
    if options.get("nproc_per_node") in _ALL:
        del options["nproc_per_node"]
    if ":" in options.get("nnodes", ""):  # elastic: as many as there may be
        options["nnodes"] = options["nnodes"].rpartition(":")[2]
    ranks = number(options, "nproc_per_node", NAME)
    if legacy and rest and "use_env" not in options:
        rest.insert(1, "--local-rank=0")
    return Launch(
        command=tuple(rest),
        module="module" in options,
        launcher=NAME,
        nodes=number(options, "nnodes", NAME) or (1 if "standalone" in options else None),
        gpus_per_node=ranks,
        environment={"TORCHELASTIC_RUN_ID": options.get("rdzv_id", "none")},
    )
