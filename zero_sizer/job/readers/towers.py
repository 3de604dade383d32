"""Towers, projectors and language models that a tool's switches keep from being trained.

LLaMA-Factory at ff6d4d1: ``model/model_utils/visual.py`` (``COMPOSITE_MODELS``) and
``model/adapter.py``. ms-swift at 3602360: ``model/model_arch.py``, ``arguments/tuner_args.py`` and
``pipelines/train/tuner.py``.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from zero_sizer.config.document import Document
from zero_sizer.hardware.assemble import Stated
from zero_sizer.job.readers import facts
from zero_sizer.job.readers.facts import Tool
from zero_sizer.job.statements import OfModel
from zero_sizer.models.changes.freeze import patterns_of
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Names of a model's parts: anywhere in a parameter's name, or at its beginning.

    Attributes:
        vision: of the tower.
        projector: between it and the language model.
        language: of the language model with its head.
        conflict: modules that never get an adapter.
    """

    vision: tuple[str, ...] = ("vision_tower",)
    projector: tuple[str, ...] = ("multi_modal_projector",)
    language: tuple[str, ...] = ("language_model", "lm_head")
    conflict: tuple[str, ...] = ()


OfNames = Callable[[ModelSpec], Iterable[str]]
Switch = tuple[str, bool, str]
"""A tool's key, its default, and the part that it freezes."""
FACTORY_SWITCHES: tuple[Switch, ...] = (
    ("freeze_vision_tower", True, "vision"),
    ("freeze_multi_modal_projector", True, "projector"),
    ("freeze_language_model", False, "language"),
)
SWIFT_SWITCHES: tuple[Switch, ...] = (
    ("freeze_vit", True, "vision"),
    ("freeze_aligner", True, "projector"),
    ("freeze_llm", False, "language"),
)
_BLOCKS = ("visual.patch_embed", "visual.blocks")
_MERGER = ("visual.merger",)
_QWEN2 = Parts(vision=_BLOCKS, projector=_MERGER, conflict=("patch_embed",))
_QWEN3 = Parts(
    vision=("visual.pos_embed", *_BLOCKS, "visual.deepstack_merger_list"),
    projector=_MERGER,
    conflict=("patch_embed",),
)
_QWEN35 = Parts(
    vision=("visual.pos_embed", *_BLOCKS),
    projector=("model.visual.merger",),
    conflict=("patch_embed",),
)
FACTORY: Mapping[str, Parts] = {
    **dict.fromkeys(("llava", "gemma3", "internvl", "mistral3", "paligemma"), Parts()),
    **dict.fromkeys(("llama4", "mllama"), Parts(vision=("vision_model",))),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _QWEN2),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_moe"), _QWEN3),
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe"), _QWEN35),
    "qwen2_audio": Parts(vision=("audio_tower",)),
}
"""Parts by the config's ``model_type``; other models' switches do nothing."""
_UNDER_MODEL = Parts(
    vision=("model.vision_tower",),
    projector=("model.multi_modal_projector",),
    language=("model.language_model", "lm_head"),
)
SWIFT: Mapping[str, Parts] = {
    **dict.fromkeys(("llava", "gemma3", "internvl", "mistral3", "paligemma"), _UNDER_MODEL),
    "llama4": Parts(vision=("vision_model",), language=("language_model",)),
    "qwen2_audio": Parts(vision=("audio_tower",), language=("language_model",)),
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl"),
        Parts(
            vision=("model.visual",),
            projector=("model.visual.merger",),
            language=_UNDER_MODEL.language,
        ),
    ),
    **dict.fromkeys(
        ("qwen3_vl", "qwen3_vl_moe"),
        Parts(
            vision=("model.visual",),
            projector=("model.visual.merger", "model.visual.deepstack_merger_list"),
            language=_UNDER_MODEL.language,
        ),
    ),
    **dict.fromkeys(
        ("qwen3_5", "qwen3_5_moe"),
        Parts(
            vision=("model.visual",),
            projector=("model.visual.merger",),
            language=("model.language_model",),
        ),
    ),
}


def stated(tool: Tool, file: Document, switches: Sequence[Switch]) -> tuple[list[str], str]:
    """The parts that are frozen, and where the switches say so.

    Raises:
        InputError: a switch is neither true nor false.
    """
    on, where = [], []
    for key, usual, part in switches:
        if facts.flag(file, key, usual):
            on.append(part)
            is_said = file.values.get(key) is not None
            where.append(f"{key} ({file.where(key) if is_said else tool.default})")
    return on, ", ".join(where)


def _named(parts: Parts | None, on: Iterable[str]) -> tuple[str, ...]:
    """Names of these parts, none of a model without parts."""
    return tuple(key for part in on for key in getattr(parts, part)) if parts else ()


def _of(table: Mapping[str, Parts], spec: ModelSpec) -> Parts | None:
    return table.get(str(spec.hf_config.get("model_type", "")))


def frozen(spec: ModelSpec, is_frozen: Callable[[str], bool], origin: str) -> Stated | None:
    """Patterns of the parameters that are not trained; None where all are."""
    taken = [tensor.name for tensor in spec.parameters if is_frozen(tensor.name)]
    return Stated(patterns_of(taken, spec), origin) if taken else None


def of_factory(
    tool: Tool, file: Document, trains: OfNames | None = None, origin: str = ""
) -> OfModel:
    """Freezing by LLaMA-Factory: parts of a model, and all but what ``trains`` names.

    Args:
        tool: with the defaults' version.
        file: which states the switches.
        trains: names of what is trained, for ``finetuning_type: freeze``.
        origin: of these names.
    """
    on, where = stated(tool, file, FACTORY_SWITCHES)

    def found(spec: ModelSpec) -> Stated | None:
        parts, names = _of(FACTORY, spec), list(trains(spec) if trains else ())
        if parts is not None and trains is not None and "projector" not in on:
            names += parts.projector
        keys = _named(parts, on)

        def is_frozen(name: str) -> bool:
            is_left = trains is not None and not any(part in name for part in names)
            return is_left or any(key in name for key in keys)

        places = [where if parts is not None else "", origin]
        return frozen(spec, is_frozen, ", ".join(filter(None, places)))

    return found


def without_adapters(tool: Tool, file: Document) -> OfModel:
    """A regular expression of modules that LLaMA-Factory gives no adapter."""
    on, where = stated(tool, file, FACTORY_SWITCHES)

    def found(spec: ModelSpec) -> Stated | None:
        parts = _of(FACTORY, spec)
        if parts is None:
            return None
        keys = _named(parts, on) + parts.conflict
        return Stated(rf".*({_either(keys)}).*", where) if keys else None

    return found


_OF_AXOLOTL = frozenset(
    {
        *("vision_tower", "vision_model", "vision_encoder", "embed_vision", "visual"),
        *("multi_modal_projector", "audio_tower", "audio_model", "embed_audio"),
    }
)
"""Modules that axolotl's ``freeze_mm_modules`` freezes (067b021, ``utils/freeze.py``)."""


def of_axolotl(origin: str) -> OfModel:
    """Freezing by axolotl of what sees or hears."""
    return lambda spec: frozen(
        spec, lambda name: not _OF_AXOLOTL.isdisjoint(name.split(".")), origin
    )


def without_axolotl_adapters(origin: str) -> OfModel:
    """A regular expression of the same modules: adapters in them are frozen with them."""
    names = _either(sorted(_OF_AXOLOTL))
    return lambda _: Stated(rf"(.*\.)?({names})(\..*)?", origin)


def of_swift(tool: Tool, file: Document) -> OfModel:
    """Freezing by ms-swift of a model that is tuned whole.

    A projector that is trained is so within a frozen tower too; ``freeze_parameters`` and
    ``trainable_parameters`` name beginnings.
    """
    on, where = stated(tool, file, SWIFT_SWITCHES)
    own = tuple(facts.names(file, "freeze_parameters") or ())
    kept = tuple(facts.names(file, "trainable_parameters") or ())

    def found(spec: ModelSpec) -> Stated | None:
        parts = _of(SWIFT, spec)
        begins = own + _named(parts, on)
        trained = kept + (parts.projector if parts and "projector" not in on else ())
        place = f"freeze_parameters ({file.where('freeze_parameters')})" if own else ""
        origin = ", ".join(filter(None, [where if parts else "", place]))
        return frozen(
            spec, lambda name: name.startswith(begins) and not name.startswith(trained), origin
        )

    return found


def without_swift_adapters(tool: Tool, file: Document) -> OfModel:
    """A regular expression of modules that ms-swift's ``all-linear`` leaves out."""
    on, where = stated(tool, file, SWIFT_SWITCHES)

    def found(spec: ModelSpec) -> Stated | None:
        parts = _of(SWIFT, spec)
        if parts is None or not on:
            return None
        keys = _named(parts, on)
        kept = "" if "projector" in on else rf"(?!({_either(parts.projector)}))"
        return Stated(rf"{kept}({_either(keys)})(\..*)?", where)

    return found


def _either(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)
