"""Exceptions that stop a run. What a user can mend without stopping is a ``Finding`` instead."""

from typing import Any


class ZeroSizerError(Exception):
    """Stops the run with one readable line; ``exit_code`` is what the process returns.

    Attributes:
        message: what is wrong, in the user's words.
        remedy: what to do about it; may be empty.
        where: ``file:line`` or a flag; may be empty.
    """

    exit_code = 2

    def __init__(self, message: str, *, remedy: str = "", where: str = "") -> None:
        self.message = message
        self.remedy = remedy
        self.where = where
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


class InputError(ZeroSizerError):
    """A file, flag or value that cannot be read or understood. Exit code 2."""


class UnsupportedError(ZeroSizerError):
    """A well-formed question that this version cannot answer. Exit code 3."""

    exit_code = 3


class WitnessError(ZeroSizerError):
    """A real run (dry run) that failed or cannot be started. Exit code 3.

    Attributes:
        config: of a script, the DeepSpeed config that it had when it failed: its file or values.
        ranks: of a script, nodes and GPUs on each.
    """

    exit_code = 3
    config: str | dict[str, Any] | None = None
    ranks = (1, 1)


class EngineError(WitnessError):
    """A real run that DeepSpeed itself stopped: the job is not valid. Exit code 1.

    Attributes:
        raised_at: ``deepspeed/...py:line``.
        keys: dotted keys of the config that the message names.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        where: str = "",
        raised_at: str = "",
        keys: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, remedy=remedy, where=where)
        self.raised_at = raised_at
        self.keys = keys
