"""Shell and sbatch scripts: the launcher line in them, its arguments, and ``#SBATCH``."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from zero_sizer.config.document import Document
from zero_sizer.errors import InputError, ZeroSizerError
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.job.readers import (
    accelerate,
    facts,
    in_front,
    paths,
    recognise,
    sbatch,
    shell_counts,
)
from zero_sizer.job.readers.shell_words import UNKNOWN, Command, commands
from zero_sizer.job.statements import NODES_UNKNOWN, VARIABLE_UNKNOWN, Statements
from zero_sizer.launchers import reader as launchers
from zero_sizer.launchers.launch import Launch
from zero_sizer.util.files import read_bytes
from zero_sizer.util.spelling import nearest, shown

_MAX_BYTES = 2**18
_TRL_SCRIPTS = ("sft", "dpo", "grpo", "kto", "reward", "rloo", "orpo", "gkd", "online_dpo")
_MORE_THAN_TUNING = frozenset({"dpo", "grpo", "kto", "ppo", "rloo", "rlhf", "orpo", "simpo"})
_ReadArguments = Callable[[Document], Statements | None]


def read(path: str, read_arguments: _ReadArguments) -> Statements:
    """Reads a script that starts a training.

    Args:
        path: the script.
        read_arguments: reads the arguments of a Python script.

    Raises:
        InputError: it starts none, or something in it is wrong.
    """
    text = _text(path)
    directives = dict(sbatch.directives(text))
    variables = sbatch.variables(directives)
    found = list(commands(text, variables, path))
    command, launch, notes = _chosen(path, found, variables)
    launch = replace(launch, environment={**_pixels(variables), **launch.environment})
    said = _arguments(path, text, command, launch, read_arguments)
    if launch.options.get("config_file") or launch.environment.get("ACCELERATE_USE_DEEPSPEED"):
        said = _over_accelerate(said, _accelerate(path, text, command, launch))
    cluster = {
        **said.cluster,
        **sbatch.cluster(path, f"{path}:{command.first}", launch, directives),
    }
    if "nodes" not in cluster:
        notes = [*notes, *_nodes_unknown(path, text, command)]
    return replace(
        said,
        source=path,
        tool=said.tool or "a launcher line",
        cluster=cluster,
        findings=(*said.findings, *notes),
    )


def _over_accelerate(said: Statements, outer: Statements) -> Statements:
    """The script's statements over its launcher's; a precision that it leaves out is the latter's.

    transformers 5.23 training_args.py: without ``bf16`` and ``fp16``, ``mixed_precision`` counts.
    """
    both = said.over(outer)
    own, given = said.workload.get("precision"), outer.workload.get("precision")
    if given is None or own is None or own.value != "fp32" or not facts.is_default(own):
        return both
    return replace(both, workload={**both.workload, "precision": given})


def _text(path: str) -> str:
    try:
        text = read_bytes(path, _MAX_BYTES, "a script").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not a text file", where=path) from None
    if "\0" in text:
        raise InputError("is not text (holds NUL bytes)", where=path)
    return text


def _chosen(
    path: str, found: Sequence[Command], variables: Mapping[str, str]
) -> tuple[Command, Launch, list[Finding]]:
    """The command that starts the training: the last that a launcher starts, else Python.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    passed = [f"{name}={variables[name]}" for name in shell_counts.PASSED if variables.get(name)]
    read: list[tuple[Command, Launch]] = []
    problem: ZeroSizerError | None = None
    where = path
    for command in found:
        words, _ = shell_counts.counted(
            [*passed, *_beside(path, in_front.handed_on(command.words))]
        )
        try:
            shell_counts.require_known_file(words)
            launch = launchers.read(words, needs_script=False)
        except ZeroSizerError as error:
            if in_front.is_launcher(command.words):
                problem, where = error, f"{path}:{command.first}"
            continue
        if launch.module or launch.command[0].endswith(".py"):
            read.append((command, launch))
    launched = [item for item in read if item[1].launcher] or read
    if not launched:
        if problem is not None:
            about = "" if problem.where in ("", "after --") else f"{problem.where}: "
            raise InputError(f"{about}{problem.message}", remedy=problem.remedy, where=where)
        raise InputError(
            "no line in this script starts a training that is known here",
            remedy=f"known: {launchers.KNOWN}",
            where=path,
        )
    command, launch = launched[-1]
    if len(launched) == 1:
        return command, launch, []
    note = Finding(
        code="several-launcher-lines",
        severity=Severity.NOTE,
        line=command.first,
        file=path,
        message=f"{len(launched)} lines start a program; this one, the last, is read",
    )
    return command, launch, [note]


def _beside(path: str, words: Sequence[str]) -> list[str]:
    """The words, with files of launchers that lie beside the script found there."""
    found = list(words)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if key not in ("config_file", "hostfile") or not name.startswith("--"):
            continue
        named = value if equals else "".join(words[index + 1 : index + 2])
        beside = paths.near(path, named) if named else None
        if beside is not None and equals:
            found[index] = f"{name}={beside}"
        elif beside is not None:
            found[index + 1] = beside
    return found


def _nodes_unknown(path: str, text: str, command: Command) -> Iterator[Finding]:
    """A number of nodes that only the shell knows: one is counted, and more can only save."""
    _, unknown = shell_counts.counted(command.words)
    for name in [name for name in unknown if name in shell_counts.OF_NODES][:1]:
        yield Finding(
            code=NODES_UNKNOWN,
            severity=Severity.WARNING,
            key="--nodes",
            line=_line(text, name, command),
            file=path,
            message=f"{name} {shown(unknown[name])} is known only where the script runs: "
            "one node is counted",
            remedy="give --nodes",
            direction=Direction.SAVE,
        )


def _arguments(
    path: str,
    text: str,
    command: Command,
    launch: Launch,
    read_arguments: _ReadArguments,
) -> Statements:
    """What the script's own arguments say, and the file that they name."""
    program, *words = launch.command
    file, positional = _document(path, text, command, words)
    file = _with_environment(file, text, command, launch)
    said = _of_program(path, program, file, positional, read_arguments)
    odd = _misspelt(file.source, text, command, launch)
    notes = (*_left_to_variables(file, words), *_by_its_name(said, program, file), *odd)
    is_switch = (
        "deepspeed" not in file.values
        and "--deepspeed" in words
        and all(map(_is_option, words[words.index("--deepspeed") + 1 :][:1]))
    )
    return replace(said, findings=(*said.findings, *notes), makes_config=is_switch)


_IMAGES = (
    *("MAX_PIXELS", "MIN_PIXELS", "IMAGE_MAX_TOKEN_NUM"),
    *("VIDEO_MAX_PIXELS", "VIDEO_MAX_TOKEN_NUM", "VIDEO_TOTAL_PIXELS", "FPS_MAX_FRAMES"),
)
"""Variables that bound images and videos: qwen_vl_utils' and ms-swift's."""


def _pixels(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: variables[name] for name in _IMAGES if variables.get(name)}


def _with_environment(file: Document, text: str, command: Command, launch: Launch) -> Document:
    """The arguments, with what variables say of images."""
    found = _pixels(launch.environment)
    known = {name: _plain(value) for name, value in found.items() if UNKNOWN not in value}
    lines = {name: _line(text, name, command) for name in known}
    return replace(file, values={**known, **file.values}, lines={**lines, **file.lines})


def _misspelt(source: str, text: str, command: Command, launch: Launch) -> Iterator[Finding]:
    """Variables that are named much as one that bounds images, which nobody reads."""
    for name in (key for key in launch.environment if "PIXEL" in key and key not in _IMAGES):
        if near := nearest(name, _IMAGES, cutoff=0.9):
            yield Finding(
                code="unknown-variable", severity=Severity.WARNING, file=source, key=name,
                line=_line(text, name, command), message=f"nothing reads the variable {name}",
                remedy=f"did you mean {near[0]}?")  # fmt: skip


def _of_program(
    path: str,
    program: str,
    file: Document,
    positional: Sequence[str],
    read_arguments: _ReadArguments,
) -> Statements:
    tool = _tool(program)
    named = [w for w in positional if Path(w).suffix.lower() in (".yaml", ".yml", ".json")]
    config = file.values.get("config")
    if isinstance(config, str) and config.lower().endswith((".yaml", ".yml")):
        named = [config]
    if named:
        return _with_file(path, file, named[0], tool)
    if tool:
        return _of_kind(recognise.reader_of(tool)(file), program, file)
    return read_arguments(file) or _loose(file)


def _by_its_name(said: Statements, program: str, file: Document) -> Iterator[Finding]:
    """What a script such as ``run_dpo.py`` keeps beside, where its arguments do not say so."""
    kinds = set(re.split(r"[^a-z]+", Path(program).stem.lower())) & _MORE_THAN_TUNING
    is_said = any(found.code == facts.NOT_MODELLED for found in said.findings)
    if kinds and program.endswith(".py") and not is_said:
        why = f"{program} is {sorted(kinds)[0].upper()} by its name, which keeps more models or"
        note = facts.not_modelled(f"{why} samples at once than fine-tuning does", Direction.COST)
        yield replace(note, file=file.source)


def _left_to_variables(file: Document, words: Sequence[str]) -> Iterator[Finding]:
    """Arguments whose values only a shell that runs knows."""
    for key, value in _unknown(words):
        note = Finding(
            code=VARIABLE_UNKNOWN,
            severity=Severity.NOTE,
            message=f"--{key} {shown(value)} is known only where the script runs; not read",
            remedy="write the value, or state it with a flag",
        )
        yield facts.at(file, key, note)


def _unknown(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Arguments by name whose values begin with what only a shell that runs knows."""
    for name, value in pairwise(words):
        if name.startswith("--") and value.startswith(UNKNOWN):
            yield name[2:].replace("-", "_"), value


def _loose(file: Document) -> Statements:
    """Arguments of which some are the Trainer's, of a script with others of its own."""
    from zero_sizer.job.readers.trainer import TRAINING_ARGUMENTS as TOOL

    known = {key for fact in TOOL.facts for key in fact.keys} | TOOL.known
    if known & file.values.keys():
        return recognise.reader_of(TOOL.name)(file)
    return Statements(source=file.source)


def _tool(program: str) -> str:
    """Whose program it is, by its module or script."""
    if program.startswith("llamafactory"):
        return "LLaMA-Factory"
    if ".swift.cli." in f".{program.replace('/', '.')}":  # also torchrun swift/cli/sft.py
        return "ms-swift"
    if program.startswith("axolotl"):
        return "axolotl"
    stem = Path(program).stem if program.endswith(".py") else program.rpartition(".")[2]
    is_trl = program.startswith("trl.") or (program.endswith(".py") and stem in _TRL_SCRIPTS)
    return "trl" if is_trl else ""


def _of_kind(said: Statements, program: str, file: Document) -> Statements:
    """The statements with what another way of training than fine-tuning costs."""
    stem = program.removesuffix(".py").replace("/", ".").rpartition(".")[2]
    if said.tool != "trl" or stem == "sft" or stem not in _TRL_SCRIPTS:
        return said
    note = facts.not_modelled(
        f"trl {stem} keeps more models or samples at once than fine-tuning does", Direction.COST
    )
    return replace(said, findings=(*said.findings, replace(note, file=file.source)))


def _with_file(path: str, file: Document, named: str, tool: str) -> Statements:
    """What a file says that the line names, with the line's own arguments instead of its."""
    base = recognise.document(paths.near(path, named) or named)
    merged = replace(base, values={**base.values, **_plain_keys(file)})
    row = recognise.recognised(merged.values)
    if tool:
        return recognise.reader_of(tool)(merged)
    if row is None:
        return Statements(source=path)
    return recognise.read_by(row, merged)


def _plain_keys(file: Document) -> dict[str, Any]:
    return {key: value for key, value in file.values.items() if key != "config"}


def _document(
    path: str, text: str, command: Command, words: Sequence[str]
) -> tuple[Document, list[str]]:
    """The arguments by name, each with its line, and those without a name."""
    values, positional = _named(word for word in words if word != "--local_rank=0")
    config = values.pop("deepspeed_config", None)  # DeepSpeed's own argument
    if values.get("deepspeed") is True:
        del values["deepspeed"]
    named = [*values, *(key for key, _ in _unknown(words))]
    lines = {key: _line(text, key, command) for key in named}
    if config is not None and "deepspeed" not in values:
        values["deepspeed"] = config
        lines["deepspeed"] = _line(text, "deepspeed_config", command)
    return Document(source=path, values=values, lines=lines), positional


def _named(words: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """``--key value``, ``--key=value``, ``--switch`` and ``key=value``; and the other words."""
    values: dict[str, Any] = {}
    positional: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith("--") and len(name) > 2:
            taken = [value] if equals else []
            while not equals and rest and not _is_option(rest[0]):
                taken.append(rest.pop(0))
            if not any(UNKNOWN in value for value in taken):
                values[name[2:].replace("-", "_")] = _value(taken)
        elif equals and name.isidentifier():
            values[name] = _value([value])
        elif not word.startswith("-"):
            positional.append(word)
    return values, positional


def _is_option(word: str) -> bool:
    return word.startswith("-") and not word.lstrip("-")[:1].isdecimal() and word != "-"


def _value(words: Sequence[str]) -> Any:
    """A switch, a value or a list of values."""
    if not words:
        return True
    plain = [_plain(word) for word in words]
    return plain[0] if len(plain) == 1 else plain


def _plain(word: str) -> Any:
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if re.fullmatch(r"-?\d{1,18}", word):
        return int(word)
    if re.fullmatch(r"-?\d{0,18}\.?\d{1,18}(?:[eE][-+]?\d{1,2})?", word):
        return float(word)
    return word


def _line(text: str, key: str, command: Command) -> int:
    """The line of an argument: within the command, else where a variable holds it."""
    pattern = re.compile(rf"(?<![\w-])(?:--)?{re.escape(key).replace('_', '[-_]')}(?![\w-])")
    hits = [n for n, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    inside = [n for n in hits if command.first <= n <= command.last]
    return (inside or hits or [command.first])[0]


def _accelerate(path: str, text: str, command: Command, launch: Launch) -> Statements:
    """What the file and the options of ``accelerate launch`` say."""
    named = launch.options.get("config_file")
    file = recognise.document(named) if named else Document(source=path, values={})
    options = {key: _plain(value) for key, value in launch.options.items()}
    lines = {f"deepspeed_config.{key}": _line(text, key, command) for key in options}
    if not named:
        values = {"distributed_type": "DEEPSPEED"}
        file = Document(source=path, values=values, lines=lines)
        return accelerate.with_options(Statements(), file, options)
    return accelerate.with_options(accelerate.read(file), file, options)
