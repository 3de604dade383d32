"""The model that a rank trains: a user's, or one made of parameter shapes."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.dryrun import build_model as scripts
from zero_sizer.dryrun.shapes_model import _shapes_model
from zero_sizer.dryrun.simulated.request import Request


def build(task: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model and the client's optimizer (None where the config names one).

    Both are made as the simulated run makes them, so that the two can be compared.

    Args:
        task: ``RankTask`` as JSON values.
    """
    source, workload = task["model"], task["workload"]
    request = Request(
        config=task["config"],
        hf_config=source.get("config", {}),
        factory=source.get("target", ""),
        checkpointing=bool(workload.get("checkpointing")),
        checkpointing_how=workload.get("checkpointing_how", {}),
        attention=workload.get("attention") or "sdpa",
        zero_init=bool(workload.get("zero_init")),
        built_dtype=workload.get("built_dtype") or "",
        lora=source.get("lora"),
        freeze=tuple(source.get("freeze", ())),
    )
    model = (
        _shapes_model(task)
        if source["kind"] == "shapes"
        else scripts.build(request, with_values=True)
    )
    return model, scripts.client_optimizer(request, model)
