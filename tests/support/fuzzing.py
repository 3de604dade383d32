"""Inputs that nobody would write, for every reader and command; what each must not do.

A case is drawn from a ``random.Random``: the same seed gives the same case. ``broken`` runs one and
says what is wrong with what happened: an exception that reached the user, an exit code that is not
in the contract, more than a line of error, a character that steers a terminal, JSON that is none,
more than ``SECONDS`` of work, or nonsense that was taken without a word.
"""

import contextlib
import io
import json
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

from support import fuzz_commands as commands
from support import fuzz_nonsense as odd
from support import fuzz_questions as questions
from support import fuzz_readers as readers
from support import fuzz_tools as tools
from support.fuzz_values import Case

from zero_sizer import cli
from zero_sizer.cli.streams import _UNSEEN
from zero_sizer.errors import ZeroSizerError

SECONDS = 5.0
CODES = (0, 1, 2, 3)

WHOLE = {
    commands.check_config: 10,
    commands.check_flags: 4,
    commands.check_job: 6,
    commands.check_model: 8,
    commands.check_adapter: 6,
    commands.check_hostfile: 2,
    commands.check_safetensors: 3,
    commands.check_numbers: 3,
}
OTHER = {commands.crosscheck: 3, commands.models: 1, commands.check_money: 4}
SEARCHES = {commands.choose: 1, commands.size: 1}
NONSENSE = {
    odd.nonsense_config: 4,
    odd.nonsense_job: 2,
    odd.nonsense_model: 2,
    odd.nonsense_adapter: 1,
    odd.nonsense_recording: 1,
}
READERS = {
    readers.read_document: 6,
    readers.read_yaml: 4,
    readers.read_hostfile: 3,
    readers.read_recording: 5,
    readers.read_config_json: 5,
    readers.read_adapter: 4,
    readers.read_safetensors: 3,
    readers.read_pattern: 3,
    readers.read_bundled: 1,
}
TOOLS = {
    tools.check_tool: 3,
    tools.check_script: 2,
    tools.read_tool: 6,
    tools.read_script: 6,
}
QUESTIONS = {
    questions.calibrate: 3,
    questions.crosscheck_alone: 2,
    questions.check_profile: 2,
    questions.lint: 3,
    questions.schema: 1,
    questions.diagnose: 3,
}
GROUPS = {
    "check": WHOLE,
    "questions": QUESTIONS,
    "others": OTHER,
    "searches": SEARCHES,
    "nonsense": NONSENSE,
    "readers": READERS,
    "tools": TOOLS,
}


def draw(group: str, seed: int) -> Case:
    """The case of a group and seed."""
    random = Random(f"{group} {seed}")
    makers = GROUPS[group]
    (maker,) = random.choices(list(makers), list(makers.values()))
    return maker(random)


def broken(case: Case, folder: Path) -> str:
    """What is wrong with what happens, empty where nothing is."""
    for name, data in case.files.items():
        (folder / name).write_bytes(data)
    started = time.process_time()
    try:
        wrong = _read(case, folder) if case.call else _run(case, folder)
    except (KeyboardInterrupt, TimeoutError):
        raise
    except BaseException:  # whatever reaches the user
        return traceback.format_exc(limit=-6)
    seconds = time.process_time() - started
    return wrong or (f"took {seconds:.1f} s" if seconds > SECONDS else "")


def _read(case: Case, folder: Path) -> str:
    with contextlib.suppress(ZeroSizerError):
        assert case.call is not None
        case.call(folder)
    return ""


def _run(case: Case, folder: Path) -> str:
    out, err = io.StringIO(), io.StringIO()
    argv = [
        word.replace("@/", f"{folder}/") if word.startswith("@/") else word for word in case.argv
    ]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: Any = cli.main(argv)
        except SystemExit as stop:
            code = stop.code
    return said(case, code, out.getvalue(), err.getvalue())


def said(case: Case, code: Any, out: str, err: str) -> str:
    """What is wrong with an answer."""
    if code not in CODES:
        return f"exit code {code}"
    if err.count("\n") > 1 or (err and out) or not (err or out):
        return f"{err.count(chr(10))} lines of error, {len(out)} characters of answer: {err[:300]}"
    if _UNSEEN.search(out) or _UNSEEN.search(err):
        return "a character that steers a terminal"
    longest = max(map(len, (out + err).split("\n")))
    is_json = bool(out) and not {"--format=json", "--format=sarif"}.isdisjoint(case.argv)
    if longest > 4_100 and not is_json:
        return f"a line of {longest} characters"
    answer = json.loads(out, parse_constant=_no_constant) if is_json else {}
    if not case.nonsense or err:
        return ""
    if not answer.get("valid", True):
        return ""
    about = [f["key"] + f["message"] for f in answer.get("findings", ())]
    if not any(case.nonsense.rpartition(".")[2] in text for text in about):
        return f"{case.nonsense} was taken without a word"
    return ""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} in JSON")
