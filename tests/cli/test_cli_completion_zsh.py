"""``completion zsh``: an interactive zsh completes with what is printed."""

import re
import shutil
import subprocess
import sys

import pytest

from zero_sizer.cli.command import _COMMANDS
from zero_sizer.hardware.catalog import all_gpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh: apt-get install zsh"),
]

COMPLETE, LIST, TELL = "\t", "\x04", "\x18"
START = """
PS1=''; unsetopt zle_bracketed_paste prompt_sp beep
fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -d {folder}/dump
zstyle ':completion:*' list-colors ''; zstyle ':completion:*' verbose no
LISTMAX=10000
tell() {{ zle -I; print -r -- "<<$BUFFER>>"; BUFFER= }}
zle -N tell; bindkey '^I' complete-word '^D' list-choices '^X' tell
print ready-${{:-now}}
"""
_STEERING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\r\x07]")


@pytest.fixture
def shell(tmp_path):
    """A zsh that has loaded the script; types words, presses a key, gives what it shows."""
    pexpect = pytest.importorskip("pexpect")
    script = [sys.executable, "-m", "zero_sizer", "completion", "zsh"]
    printed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    (tmp_path / "_zero-sizer").write_text(printed)
    (tmp_path / "start").write_text(START.format(folder=tmp_path))
    (tmp_path / "ds_zero3.json").write_text("{}")
    zsh = pexpect.spawn(
        "zsh", ["-f", "-i"], cwd=str(tmp_path), encoding="utf-8", dimensions=(500, 160), timeout=60
    )
    zsh.sendline(f". {tmp_path}/start")
    zsh.expect_exact("ready-now")

    def typed(words, key=COMPLETE):
        zsh.send(f"zero-sizer {words}{key}{TELL}")
        zsh.expect("<<(.*)>>")
        listed = _STEERING.sub(" ", zsh.before).partition(f"zero-sizer {words}")[2]
        return zsh.match[1].removeprefix("zero-sizer ").rstrip(), set(listed.split())

    yield typed
    zsh.close(force=True)


def test_commands_options_names_and_files_are_completed(shell):
    assert shell("cho")[0] == "choose"
    assert set(_COMMANDS) <= shell("", LIST)[1]
    assert shell("check --cluster-p")[0] == "check --cluster-profile"
    assert shell("check --attention fl")[0] == "check --attention flash"
    assert shell("size --model llama-3.1-8")[0] == "size --model llama-3.1-8b"
    hopper = {gpu.name for gpu in all_gpus() if gpu.name.startswith("h100")}
    assert hopper <= shell("check --gpu h100", LIST)[1]
    assert shell("check ds_z")[0] == "check ds_zero3.json"
    assert shell("check --hostfile ds_z")[0] == "check --hostfile ds_zero3.json"
