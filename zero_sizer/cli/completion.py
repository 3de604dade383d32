"""``zero-sizer completion``: a script with which a shell completes commands, options and names."""

import argparse
from typing import Any

from zero_sizer.errors import UnsupportedError

SHELLS = ("bash", "zsh", "tcsh")
_FILES = ("FILE", "CONFIG", "RECORDING", "LOG", "LORA")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or tcsh")
    parser.epilog = (
        "bash reads it from ~/.local/share/bash-completion/completions/zero-sizer, zsh from "
        "_zero-sizer in a folder of its fpath, tcsh from a file that ~/.tcshrc sources."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab
    except ImportError:
        raise UnsupportedError(
            "completion needs shtab, which is not installed",
            remedy="pip install 'zero-sizer[completion]'",
        ) from None
    from zero_sizer.cli.command import whole_parser

    parser = whole_parser()
    for command in _commands(parser):
        for action in command._actions:
            _complete(action, shtab)
    print(shtab.complete(parser, shell=arguments.shell))
    return 0


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found: list[argparse.ArgumentParser] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices.values()
    return found


def _complete(action: Any, shtab: Any) -> None:
    """Names of GPUs, instances and models that are known, files where one is asked for."""
    if action.dest == "gpu":
        from zero_sizer.hardware.catalog import all_gpus

        action.choices = [gpu.name for gpu in all_gpus()]
    elif action.dest == "instance":
        from zero_sizer.hardware.instances import all_instances

        action.choices = [row.name for row in all_instances()]
    elif action.dest == "model":
        from zero_sizer.models import bundled_names

        action.choices = list(bundled_names())
    elif action.metavar in _FILES:
        action.complete = shtab.FILE
    elif action.metavar == "DIR":
        action.complete = shtab.DIRECTORY
