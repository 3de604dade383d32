"""Public configs as found in the wild (kept outside the repository; skipped without them)."""

import json
from pathlib import Path
from typing import Any

import pytest
from config_witness import Witness, errors, load_witness, resolved

from zero_sizer.config import auto
from zero_sizer.config.document import Document, load
from zero_sizer.errors import InputError

FOLDER = Path(__file__).parents[2] / "shared" / "configs"
CONFIGS = sorted(FOLDER.glob("*.json"))

pytestmark = pytest.mark.skipif(not CONFIGS, reason="the collected configs are not here")


def filled(node: Any, path: str = "") -> Any:
    """``node`` with every "auto" that Hugging Face fills replaced by a value it could be."""
    if isinstance(node, dict):
        items = {
            key: filled(value, f"{path}.{key}" if path else key) for key, value in node.items()
        }
        return {
            key: value for key, value in items.items() if value is not None or node[key] is None
        }
    if node != "auto":
        return node
    values = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    values |= {"gradient_clipping": 1.0, "bf16.enabled": True, "fp16.enabled": False}
    values |= dict.fromkeys(auto.HIDDEN_KEYS, 1000) | dict.fromkeys(auto.NO_MEMORY, 1)
    values |= {"optimizer.params.betas": [0.9, 0.999], "train_batch_size": None}
    return values.get(path, "auto")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem[:40])
def test_every_config_is_read_or_refused_with_a_line(path: Path) -> None:
    try:
        document = load(str(path))
    except InputError as error:
        message = str(error)
    else:
        check_lines(path, document)
        return
    assert "\n" not in message
    assert message.startswith(f"{path}:")


def check_lines(path: Path, document: Document) -> None:
    text = path.read_text(encoding="utf-8-sig").splitlines()
    for key, line in document.lines.items():
        name = key.rpartition(".")[2]
        assert name.endswith("]") or name in text[line - 1], (key, line)


@pytest.mark.slow
def test_an_error_appears_exactly_when_deepspeed_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    witness = load_witness(monkeypatch)
    disagreements = [line for path in CONFIGS if (line := disagreement(witness, path))]
    assert not disagreements, "\n".join(disagreements)


def disagreement(witness: Witness, path: Path) -> str:
    try:
        document = load(str(path))
    except InputError as error:
        return (
            ""
            if witness.unreadable(path.read_text())
            else f"{path.name}: DeepSpeed reads it: {error}"
        )
    config = filled(json.loads(json.dumps(document.values)))
    refusal = witness.refusal(config)
    ours = [f.message for f in errors(resolved(config)[1])]
    return "" if bool(refusal) == bool(ours) else f"{path.name}: DeepSpeed {refusal!r}, ours {ours}"
