"""Every bundled model."""

from model_source import CONFIG_FIELDS, Source
from model_sources_later import LATER
from model_sources_llama import LLAMA, MISTRAL, QWEN
from model_sources_other import OLDER, OTHERS
from model_sources_seeing import SEEING_AND_HEARING
from model_sources_seeing_2026 import SEEING_2026
from model_sources_text_2026 import TEXT_2026

__all__ = ["CONFIG_FIELDS", "SOURCES", "Source"]

SOURCES: dict[str, Source] = {
    **LLAMA,
    **MISTRAL,
    **QWEN,
    **OLDER,
    **OTHERS,
    **SEEING_AND_HEARING,
    **LATER,
    **SEEING_2026,
    **TEXT_2026,
}
