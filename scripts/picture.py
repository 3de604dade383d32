"""The answer of a command as a picture for README.md: docs/answer.svg.

Run it after a change of what `check` prints, through scripts/refresh_readme.py.
"""

import io
import re

from rich.console import Console
from rich.text import Text

COLUMNS = 104
COMMAND = (
    "zero-sizer check deepspeed_configs/demo.json --model qwen2.5-32b --gpus-per-node 8 "
    "--gpu a100-80gb --host-memory 1TiB --seq-len 8192 --checkpointing --attention flash"
)
_STYLES = {
    r"^\$ .*": "bold",
    r"^DOES NOT FIT": "bold red",
    r"^FITS": "bold green",
    r"^(new peak|GiB) .*": "bold",
    r"^each (GPU|host) at its peak.*": "bold",
    r"^note: .*(?:\n  .*)*": "dim",
}
# As rich's own, but for fonts that a page would have to load.
_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>{unique_id}</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; \
font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def svg_of(command: str, output: str) -> str:
    """A terminal that shows a command and its output, as SVG that loads nothing."""
    text = Text(f"$ {command}\n{output}", no_wrap=False)
    for pattern, style in _STYLES.items():
        for match in re.finditer(pattern, text.plain, re.MULTILINE):
            text.stylize(style, *match.span())
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        color_system="truecolor",
        force_terminal=True,
        legacy_windows=False,
    )
    console.print(text, highlight=False)
    found = console.export_svg(title="", unique_id="zero-sizer", code_format=_FORMAT)
    return "\n".join(line.rstrip() for line in found.splitlines() if line.strip()) + "\n"
