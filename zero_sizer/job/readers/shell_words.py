"""Commands of a shell script, word by word, with what its own variables say put in.

A reader of what scripts that start a training have: assignments, continued lines, quotes,
``$((...))`` of whole numbers, ``bash -c``. Nothing is run; what it does not understand stays.
"""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping

from zero_sizer.errors import InputError
from zero_sizer.util.records import dataclass

_MAX_LINES = 20_000
_MAX_ARRAY = 2**14
_MAX_TEXT = 2**16  # of a line with its variables put in: one can double another
_DECLARED = r"(?:export\s+|readonly\s+|(?:declare|local|typeset)\s+(?:-\w+\s+)*)?"
_ASSIGNMENT = re.compile(rf"{_DECLARED}([A-Za-z_]\w*)(\+?)=(.*)", re.S)
_ARRAY = re.compile(rf"\s*{_DECLARED}([A-Za-z_]\w*)(\+?)=\((.*)", re.S)
_ARRAY_USED = re.compile(r"\"\$\{(\w+)\[[@*]\]\}\"|\$\{(\w+)\[[@*]\]\}")
_LENGTH = re.compile(r"\$\{#(\w+)\[[@*]\]\}")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?[-=]([^}$]*))?\})")
_POSITIONAL = re.compile(r"\$(?:\d|\{\d\})")
_PARENTHESIS = re.compile(r"[()]")
_BACKTICKS = re.compile(r"`[^`]*`")
UNKNOWN = "$"
"""Marks what only a shell that runs can know."""
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", "(", ")", "{", "}", "|&", ">", ">>", "<"})
_BEFORE_COMMENT = frozenset(" \t\n;&|()<>")
_TELLING = frozenset('\n"\\')  # of a value, where a shell splits or quotes it
_KEYWORDS = frozenset({"if", "then", "else", "do", "time", "!"})


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        words: as the shell would hand them on.
        first: its first line in the script, from 1 on.
        last: its last one.
    """

    words: tuple[str, ...]
    first: int
    last: int


def commands(text: str, variables: dict[str, str], where: str) -> Iterator[Command]:
    """Every command of a script; ``variables`` takes up its assignments on the way.

    Raises:
        InputError: more than a script holds.
    """
    for line, first, last in _logical_lines(text, where):
        written = line.strip()
        elements = _array(written)
        if elements is not None:
            name, more = _ARRAY.match(written).group(1, 2)  # type: ignore[union-attr]
            found = [expanded(word, variables, where) for word in elements]
            before = shlex.split(variables.get(name, "")) if more else []
            variables[name] = shlex.join([*before, *found])
            continue
        assigned = _ASSIGNMENT.fullmatch(written)
        if assigned and (value := _one_value(assigned.group(3))) is not None:
            _assign(variables, assigned, expanded(value, variables, where))
            continue
        _take_up(written, variables, where)
        for words in _split(expanded(written, variables, where)):
            set_here = [match for match in _assignments(words) if not match.group(2)]
            variables.update({match.group(1): match.group(3) for match in set_here})
            yield Command(words=words, first=first, last=last)


def _assign(variables: dict[str, str], assigned: re.Match[str], value: str) -> None:
    """An assignment, or what ``+=`` adds to it."""
    name, more = assigned.group(1, 2)
    if not more and variables.get(name) and _POSITIONAL.fullmatch(value):
        return  # MODEL=$2 in a loop over arguments: its default stands where none is given
    variables[name] = (variables.get(name, "") if more else "") + value


def _words(text: str, punctuation: str = "") -> list[str]:
    """Words of a line.

    Raises:
        ValueError: a quote is not closed.
    """
    lexer = shlex.shlex(_without_comments(text), posix=True, punctuation_chars=punctuation)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _without_comments(text: str) -> str:
    """The text up to each ``#`` that begins a word; shlex takes ``data#1000`` for a comment too."""
    if "#" not in text:
        return text
    kept: list[str] = []
    quote, before, is_comment = "", " ", False
    for char in text:
        if is_comment and char != "\n":
            continue
        is_comment = not quote and char == "#" and before in _BEFORE_COMMENT
        if is_comment:
            continue
        quote = _quote_after(quote, char, before)
        kept.append(char)
        # An escaped backslash escapes nothing, and an escaped blank ends no word.
        before = "x" if before == "\\" and quote != "'" else char
    return "".join(kept)


def _array(line: str) -> list[str] | None:
    """Words of ``NAME=(...)``, comments left out; None where a line is none or never ends."""
    if (begun := _ARRAY.match(line)) is None:
        return None
    try:
        words = _words(begun.group(3), "()")
    except ValueError:
        return None
    return words[:-1] if words[-1:] == [")"] and not {"(", ")"} & {*words[:-1]} else None


def _take_up(line: str, variables: dict[str, str], where: str) -> None:
    """Assignments alone on a line, of which one may use the one before: ``a=1 b=$a``."""
    try:
        words = _words(line)
    except ValueError:
        return
    matches = _assignments(tuple(words)) if words else []
    if len(matches) == len(words):
        for match in matches:
            _assign(variables, match, expanded(match.group(3), variables, where))


def _assignments(words: tuple[str, ...]) -> list[re.Match[str]]:
    """What a command of nothing but assignments assigns; empty for any other."""
    bare = words[1:] if words[0] == "export" else words
    matches = [_ASSIGNMENT.fullmatch(word) for word in bare]
    return [match for match in matches if match] if all(matches) else []


def _one_value(text: str) -> str | None:
    """What an assignment assigns; None where a command follows it on the line."""
    text = text.strip()
    if _BACKTICKS.fullmatch(text) or (text.startswith("$(") and _closing(text, 1) == len(text)):
        return text
    try:
        words = _words(text)
    except ValueError:
        return None
    return (words or [""])[0] if len(words) <= 1 else None


def _logical_lines(text: str, where: str) -> Iterator[tuple[str, int, int]]:
    """Lines with those that continue them; bodies of here-documents are left out."""
    lines = text.splitlines()
    if len(lines) > _MAX_LINES:
        raise InputError(f"more than {_MAX_LINES:,} lines: not a script", where=where)
    index = 0
    while index < len(lines):
        first = index
        line = lines[index]
        while index + 1 < len(lines) and len(line) < _MAX_TEXT and _is_open(line):
            index += 1
            line = (
                f"{line[:-1]} {lines[index]}" if line.endswith("\\") else f"{line}\n{lines[index]}"
            )
        yield line.removesuffix("\\") if _is_open(line) else line, first + 1, index + 1
        ends = _HEREDOC.search(line)
        index += 1
        if ends:
            while index < len(lines) and lines[index].strip() != ends.group(1):
                index += 1
            index += 1


def _is_open(line: str) -> bool:
    """True if a line goes on: a backslash at its end, or a quote that is not closed."""
    if line.lstrip().startswith("#"):
        return False
    if _ARRAY.match(line) and len(line) < _MAX_ARRAY and not re.search(r"\)\s*(#[^\n]*)?$", line):
        return True
    if line.endswith("\\") and not line.endswith("\\\\"):
        return True
    quote = ""
    previous = ""
    for char in line:
        if quote:
            quote = "" if char == quote and not (quote == '"' and previous == "\\") else quote
        elif char in "'\"" and previous != "\\":
            quote = char
        elif char == "#" and previous in (" ", "\t", ""):
            return False
        previous = "" if previous == "\\" and char == "\\" else char
    return bool(quote)


def expanded(text: str, variables: Mapping[str, str], where: str) -> str:
    """The text with variables that are known and sums of whole numbers put in."""

    def put(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        usual = match.group(3)
        value = variables.get(name) or (usual if usual is not None else match.group(0))
        if not _TELLING & set(value):
            return value
        quote = _quote_at(match.string[: match.start()])
        if quote == '"':  # the value is one word, whatever quotes it has
            return value.replace("\\", "\\\\").replace('"', '\\"')
        return value if quote else value.replace("\n", " ")  # the shell splits it into words

    def words(match: re.Match[str]) -> str:
        return variables.get(match.group(1) or match.group(2), match.group(0))

    def length(match: re.Match[str]) -> str:
        known = variables.get(match.group(1))
        return match.group(0) if known is None else str(len(shlex.split(known)))

    found = _ARRAY_USED.sub(words, _LENGTH.sub(length, text))
    found = _VARIABLE.sub(put, found)
    if len(found) > _MAX_TEXT:
        raise InputError("its variables grow without end", where=where)
    return _BACKTICKS.sub(UNKNOWN, _substituted(found, variables))


def _substituted(text: str, variables: Mapping[str, str]) -> str:
    """The text with ``$((...))`` computed, and a mark in the place of every other ``$(...)``."""
    parts: list[str] = []
    rest = 0
    while (at := text.find("$(", rest)) >= 0 and (end := _closing(text, at + 1)):
        inner = text[at + 2 : end - 1]
        is_sum = inner.startswith("(") and inner.endswith(")")
        inner = inner[1:-1] if is_sum else inner
        is_sum = is_sum or inner.startswith("expr ")
        value = _sum(inner.removeprefix("expr "), variables) if is_sum else ""
        parts += [text[rest:at], value or UNKNOWN]
        rest = end
    return "".join(parts) + text[rest:]


def _closing(text: str, at: int) -> int:
    """Behind the parenthesis that closes the one at ``at``; 0 where none does."""
    depth = 0
    for match in _PARENTHESIS.finditer(text, at):
        depth += 1 if match.group() == "(" else -1
        if not depth:
            return match.end()
    return 0


def _quote_at(before: str) -> str:
    """The quote in which what follows ``before`` stands; "" where it stands in none."""
    quote, previous = "", ""
    for char in before:
        quote = _quote_after(quote, char, previous)
        previous = "" if previous == "\\" else char
    return quote


def _quote_after(quote: str, char: str, before: str) -> str:
    """The quote that is open behind a character; ``before`` it an escape may stand."""
    if quote:
        return "" if char == quote and not (quote == '"' and before == "\\") else quote
    return char if char in "'\"" and before != "\\" else ""


def _sum(text: str, variables: Mapping[str, str]) -> str:
    """The whole number that ``text`` computes; "" where it is none."""
    names = re.sub(r"[A-Za-z_]\w*", lambda m: variables.get(m.group(0), m.group(0)), text)
    if len(names) > 200 or not re.fullmatch(r"[\d\s()*+/%-]*", names) or "**" in names:
        return ""
    try:
        value = _value(ast.parse(names.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return ""
    return str(value) if abs(value) < 2**62 else ""


def _value(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return int(node.value)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        match node.op:
            case ast.Mult():
                return left * right
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Div():
                return left // right
            case ast.Mod():
                return left % right
    raise ValueError


def _split(line: str, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Commands between ``;``, ``&&`` and pipes, and what ``bash -c`` runs."""
    words: list[str] = []
    try:
        found = _words(_in_one_line(_without_comments(line)), ";&|()<>")
    except ValueError:  # a quote that nobody closes
        return
    for word in (*found, ";"):
        if word in _SEPARATORS:
            yield from _inner(words, depth)
            words = []
        elif words or word not in _KEYWORDS:
            words.append(word)


def _in_one_line(text: str) -> str:
    """The text with ``;`` for each end of a line that no quote holds."""
    if "\n" not in text:
        return text
    parts: list[str] = []
    quote, previous = "", ""
    for char in text:
        if quote:
            quote = "" if char == quote and not (quote == '"' and previous == "\\") else quote
        elif char in "'\"" and previous != "\\":
            quote = char
        parts.append(" ; " if char == "\n" and not quote else char)
        previous = "" if previous == "\\" else char
    return "".join(parts)


def _inner(words: list[str], depth: int) -> Iterator[tuple[str, ...]]:
    """The command, and the line that it hands to another shell."""
    if not words:
        return
    for index, word in enumerate(words[:-1]):
        is_shell = word.rpartition("/")[2] in ("bash", "sh")
        if is_shell and depth < 3:
            for at in range(index + 1, len(words) - 1):
                if words[at].startswith("-") and words[at].endswith("c"):
                    for inner in _split(words[at + 1], depth + 1):
                        yield (*words[:index], *inner)
                    return
    yield tuple(words)
