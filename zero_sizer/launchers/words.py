"""A launcher's own options, in front of the script."""

from collections.abc import Collection, Sequence

from zero_sizer.errors import InputError
from zero_sizer.util.spelling import did_you_mean

_ABBREVIATE = frozenset({"deepspeed", "torchrun"})
"""Launchers that know an option by its beginning, as argparse does unless told otherwise."""


def take(
    words: Sequence[str],
    *,
    launcher: str,
    values: Collection[str],
    flags: Collection[str],
    prefixes: tuple[str, ...] = (),
    short: dict[str, str] | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Splits a launcher's options from the script and its arguments.

    Args:
        words: what follows the launcher.
        launcher: its name, for messages.
        values: options that take a value, without dashes, with underscores.
        flags: options without one.
        prefixes: options that begin so take a value too.
        short: one-letter option -> its long name.

    Returns:
        (option -> value, "true" for a flag; the script and its arguments).

    Raises:
        InputError: an option that the launcher does not have, or one without its value.
    """
    found: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word, equals, value = rest.pop(0).partition("=")
        if word == "--":
            break
        name = word.lstrip("-").replace("-", "_")
        if not word.startswith("--"):
            name = (short or {}).get(name, name)
        elif launcher in _ABBREVIATE and name not in values and name not in flags:
            name = _completed(name, (*values, *flags))
        if name in flags:
            found[name] = value or "true"
        elif name in values or name.startswith(prefixes or ("\0",)):
            if not equals and not rest:
                raise InputError(f"{launcher} {word}: no value", where="after --")
            found[name] = value if equals else rest.pop(0)
        else:
            known = [f"--{option}" for option in (*values, *flags)]
            raise InputError(
                f"{launcher} has no option {word}",
                remedy=did_you_mean(word, known),
                where="after --",
            )
    return found, rest


def _completed(name: str, known: Sequence[str]) -> str:
    """The option that ``name`` begins, as argparse understands it, where it is only one."""
    begun = [option for option in known if option.startswith(name)]
    return begun[0] if len(begun) == 1 else name


def number(options: dict[str, str], name: str, launcher: str) -> int | None:
    """An option's whole number from 1 on, or None where it was not given.

    Raises:
        InputError: something else, such as a variable that no shell has filled in.
    """
    text = options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= 10**6:
        raise InputError(
            f"{launcher} --{name} {text}: not a whole number from 1 on",
            remedy="write the number where the line has a variable" if "$" in text else "",
            where="after --",
        )
    return int(text)
