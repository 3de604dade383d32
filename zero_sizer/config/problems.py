"""The findings of the resolver, one function each."""

from typing import Any

from zero_sizer.config import keys
from zero_sizer.config.document import Document
from zero_sizer.config.values import RefusedError, shown
from zero_sizer.findings import Finding, Severity

COMMENTS = ("_", "#", "/", "$")
"""First characters of keys that are taken for comments, or name a schema for an editor."""


def _finding(
    document: Document, code: str, severity: Severity, path: str, message: str, remedy: str = ""
) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        key=path,
        line=document.line(path),
        message=message,
        remedy=remedy,
    )


def removed(document: Document, path: str, message: str) -> Finding:
    """DeepSpeed raises for the mere presence of the key."""
    return _finding(
        document,
        "removed-key",
        Severity.ERROR,
        path,
        f"DeepSpeedConfigError: {message}",
        "delete it",
    )


def unknown(document: Document, section: keys.ConfigSection, path: str, written: str) -> Finding:
    """A key that DeepSpeed does not know."""
    guess = keys.did_you_mean(path)
    remedy = f"did you mean {guess}?" if guess else "delete it"
    where = section.path or "the top level"
    # Pydantic sections drop "auto" before they look at the key, so even a misspelt one passes.
    if section.unknown == "forbidden" and document.get(written) != "auto":
        message = f"ValidationError: {where} has no such key"
        return _finding(document, "unknown-key", Severity.ERROR, written, message, remedy)
    if path.rpartition(".")[2][:1] in COMMENTS:
        return _finding(document, "unknown-key", Severity.NOTE, written, "taken for a comment")
    message = f"DeepSpeed knows no such key in {where} and silently ignores it"
    return _finding(document, "unknown-key", Severity.WARNING, written, message, remedy)


def refused(document: Document, path: str, key: keys.Key, error: RefusedError) -> Finding:
    """A value that DeepSpeed's parser refuses."""
    return _finding(
        document,
        "bad-value" if error.out_of_range else "wrong-type",
        Severity.ERROR,
        path,
        f"{error.exception}: {error}",
        f"the default, {shown(key.default)}, is used here",
    )


def about_value(
    document: Document, path: str, key: keys.Key, value: Any, result: Any
) -> list[Finding]:
    """Accepted values that deserve a word."""
    findings = []
    if key.deprecated:
        findings.append(_deprecated(document, path, key))
    if isinstance(value, str) and isinstance(result, int | float):
        message = f"the string {shown(value)} is read as {shown(result)}"
        findings.append(
            _finding(document, "number-as-string", Severity.NOTE, path, message, "drop the quotes")
        )
    elif isinstance(value, str) and value and isinstance(key.default, int | float):
        findings.append(_kept_string(document, path, key, value))
    return findings


def _deprecated(document: Document, path: str, key: keys.Key) -> Finding:
    remedy = f"use {key.replacement}" if key.replacement else "delete it"
    return _finding(
        document, "deprecated-key", Severity.WARNING, path, "deprecated by DeepSpeed", remedy
    )


def _kept_string(document: Document, path: str, key: keys.Key, value: str) -> Finding:
    """Hand-written parsers keep a string where a number or a flag belongs."""
    example = f"a value such as {shown(key.default)}"
    if value == "auto":
        message = 'nobody fills this "auto": DeepSpeed keeps the string and may fail on it later'
        code = "auto-not-filled"
    elif isinstance(key.default, bool):
        message = (
            f"DeepSpeed keeps the string {shown(value)}, which counts as true whatever it says"
        )
        code, example = "wrong-type", "true or false, without quotes"
    else:
        message = f"DeepSpeed keeps the string {shown(value)} and fails on it later"
        code = "number-as-string"
    remedy = f"write {example}"
    return _finding(document, code, Severity.WARNING, path, message, remedy)


def auto_dropped(document: Document, path: str, key: keys.Key) -> Finding:
    """An "auto" that neither Hugging Face nor DeepSpeed fills."""
    message = (
        f'nobody fills this "auto": DeepSpeed drops it and uses its default, {shown(key.default)}'
    )
    return _finding(
        document, "auto-not-filled", Severity.WARNING, path, message, "write the value you want"
    )


def no_object(document: Document, path: str, value: Any, exception: str) -> Finding:
    """Something else than an object where a section belongs."""
    message = f"{exception}: must be an object of keys, not {shown(value)}"
    remedy = 'write {"enabled": true} or delete it' if isinstance(value, bool) else "delete it"
    return _finding(document, "wrong-type", Severity.ERROR, path, message, remedy)


def ignored_section(document: Document, path: str, value: Any) -> Finding:
    """A value that a section's parser passes over."""
    message = f"DeepSpeed expects an object of keys here and ignores {shown(value)}"
    return _finding(document, "wrong-type", Severity.WARNING, path, message, "delete it")


def boolean_zero(document: Document, path: str, value: bool) -> Finding:
    """The old form of zero_optimization."""
    stage = int(value)
    message = f"deprecated form: DeepSpeed takes {shown(value)} for stage {stage}"
    remedy = f'write {{"stage": {stage}}}'
    return _finding(document, "deprecated-key", Severity.WARNING, path, message, remedy)


def shadowed(document: Document, path: str, other: str) -> Finding:
    """An old section name beside the new one."""
    message = f"ignored, as {other} stands in the config too"
    return _finding(document, "duplicate-key", Severity.WARNING, path, message, "keep one of them")


def twice(document: Document, path: str, before: str) -> Finding:
    """A key under two names."""
    message = f"ValidationError: the same key as {before}"
    return _finding(document, "duplicate-key", Severity.ERROR, path, message, "keep one of them")


def old_and_new(document: Document, old: str, new: str) -> Finding:
    """A deprecated key beside its replacement."""
    message = f"AssertionError: cannot stand together with {new}, which replaces it"
    return _finding(document, "deprecated-key", Severity.ERROR, old, message, "delete it")


def not_strict_json(document: Document, *, needs_hugging_face: bool) -> Finding:
    """Comments or trailing commas, which one of the two readers accepts.

    transformers 5.23 and accelerate 1.15 read through accelerate/utils/deepspeed.py:143.
    """
    why = (
        '"auto" needs Hugging Face, and transformers and accelerate read'
        if needs_hugging_face
        else "DeepSpeed reads it, but transformers' Trainer and accelerate read"
    )
    return Finding(
        code="not-strict-json",
        severity=Severity.WARNING,
        message=f"{why} the file with json.load, which refuses comments, trailing commas and words "
        "without quotes (JSONDecodeError)",
        remedy="write plain JSON",
    )


def no_zero_section() -> Finding:
    """A config for Hugging Face without the section that accelerate insists on."""
    return Finding(
        code="auto-without-zero",
        severity=Severity.WARNING,
        key="zero_optimization",
        message='accelerate, which fills "auto", raises ValueError when this section is missing',
        remedy='add "zero_optimization": {"stage": 0}',
    )


def demanded(document: Document, section: str, name: str) -> Finding:
    """A section that is on without a key that it needs."""
    message = f"AssertionError: enabled, so {name} must be specified"
    return _finding(document, "missing-key", Severity.ERROR, section, message, f"add {name}")


def no_integer(document: Document, path: str, error: Exception) -> Finding:
    """A value that DeepSpeed hands to int()."""
    message = f"{type(error).__name__}: must be a whole number, not {shown(document.get(path))}"
    return _finding(document, "wrong-type", Severity.ERROR, path, message, "write a number")
