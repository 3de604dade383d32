"""Jobs small enough to be asked about often, and schemas that tell what they do not describe."""

from typing import Any

from zero_sizer.schemas import answer_schema

CONFIG: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 2},
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
}
JOB: dict[str, Any] = {"model": "gpt2", "gpu": "l4", "gpus_per_node": 2, "seq_len": 128}
TOO_LARGE: dict[str, Any] = {"model": "llama-2-7b", "gpu": "l4", "seq_len": 512}


def as_flags(keywords: dict[str, Any]) -> list[str]:
    """Keywords as words of the command line."""
    found = []
    for name, value in keywords.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-"))
        elif isinstance(value, list):
            found += [word for item in value for word in (flag, str(item))]
        else:
            found += [flag, str(value)]
    return found


def closed(name: str) -> dict[str, Any]:
    """Schema of an answer that also refuses what it does not describe."""
    found: dict[str, Any] = _closed(answer_schema(name))
    return found


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    of_names = isinstance(node.get("properties"), dict) and "required" in node
    found = {key: _closed(value) for key, value in node.items()}
    return {"additionalProperties": False, **found} if of_names else found
