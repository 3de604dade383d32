"""Many scripts through the child that runs one: forks of a process that imported torch once."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from support import warm
from support.simulated_jobs import TINY_LLAMA

from zero_sizer import launchers
from zero_sizer.dryrun.recording import Recording, from_json
from zero_sizer.dryrun.simulated.script import ScriptRequest

ROOT = Path(__file__).parents[2]
BESIDE = Path(sys.prefix) / "beside"
"""Packages that some scripts import, and no test (scripts/get_programs)."""
SCRIPTS = Path(__file__).parents[1] / "data" / "scripts"
_DRIVER = "support.script_driver"


def run_scripts(
    folder: Path, lines: dict[str, Any], *, imports: tuple[str, ...] = (), beside: bool = False
) -> dict[str, Recording | dict[str, Any]]:
    """Name -> recording, or the error in its reply.

    Args:
        folder: where the scripts run.
        lines: name -> a launcher line, or (line, fields of ``ScriptRequest``).
        imports: modules that several of the scripts need.
        beside: whether they find the packages of ``BESIDE``, which transformers looks for once a
            process: that of the driver then is its own.
    """
    questions = {}
    for name, given in lines.items():
        line, fields = given if isinstance(given, tuple) else (given, {})
        with contextlib.chdir(folder):
            launch = launchers.read([str(word) for word in line])
        nodes, gpus = launch.nodes or 1, launch.gpus_per_node or 8
        variables = launch.variables(rank=fields.get("rank", 0), nodes=nodes, gpus_per_node=gpus)
        ranks = {"nodes": nodes, "gpus_per_node": gpus, "gpu": "a100-80gb"}
        request = ScriptRequest(command=launch.command, module=launch.module, **{**ranks, **fields})
        path = folder / f"{name.replace('/', ' ')}.question"
        path.write_text(json.dumps({**asdict(request), "keep_events": False}))
        questions[name] = (str(path), variables)
    paths = [*_paths(), str(BESIDE)] if beside else _paths()
    command = [sys.executable, "-m", _DRIVER]
    done = subprocess.run(
        command if beside else warm.as_fork(command),
        input=json.dumps({"imports": imports, "questions": list(questions.values())}),
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Recording | dict[str, Any]] = {"stderr": done.stderr, "stdout": done.stdout}
    for name, (path, _) in questions.items():
        reply = Path(path + ".reply")
        assert reply.exists(), f"{name} died: {done.stderr[-3000:]}"
        values = json.loads(reply.read_text())
        found[name] = values["error"] if "error" in values else from_json(values)
    return found


def _paths() -> list[str]:
    tests = str(ROOT / "tests")
    return [str(ROOT), tests, str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]


def model_folder(folder: Path, **fields: Any) -> Path:
    """A folder with a tiny model's config and a tokenizer of a few words; no weights."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(exist_ok=True)
    words = ["the", "a", "cat", "dog", "runs", "sits", "what", "does", "do"]
    names = {name: i for i, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(WordLevel(names, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**TINY_LLAMA, **fields}))
    return folder
