"""JSON Schema of a DeepSpeed config, for editors: made of the key table and our sentences."""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from zero_sizer.config import keys
from zero_sizer.config.auto import HIDDEN_KEYS, NO_MEMORY, PLUGIN_DEFAULTS, PRECISIONS
from zero_sizer.config.batch import KEYS as BATCH_KEYS
from zero_sizer.config.keys import ConfigSection, Key
from zero_sizer.config.problems import COMMENTS
from zero_sizer.config.schema_values import AUTO, OF_OBJECTS, Schema, of_key, of_kinds

DRAFT = "http://json-schema.org/draft-07/schema#"  # newer ones are not known to every editor
HELP = os.path.join(os.path.dirname(keys.TABLE), "key_help.json")
_COMMENT = f"^[{''.join(COMMENTS)}]"
_PARAMS = "optimizer.params"  # which DeepSpeed looks at only where a type is named
_TOO_LARGE = 2**53  # of a default: no editor shows it as it is
_FILLED = {
    *HIDDEN_KEYS,
    *NO_MEMORY,
    *PLUGIN_DEFAULTS,
    *PRECISIONS,
    *BATCH_KEYS,
    "gradient_clipping",
    "steps_per_print",
}


def config_schema(*, strict: bool = False) -> Schema:
    """Schema of every config that DeepSpeed's parser takes.

    Args:
        strict: refuse keys that DeepSpeed would ignore, too, and values of another type than the
            default's where it does not look.
    """
    table = keys.table()
    about = f"Config of DeepSpeed {table.version}"
    return {
        "$schema": DRAFT,
        "$id": f"urn:zero-sizer:deepspeed-config{'-strict' if strict else ''}:{table.version}",
        "title": about,
        "description": f"{about}. Made by zero-sizer of the keys that its parser reads.",
        **_Writer(strict).section(table.sections[""], path=""),
    }


@cache
def sentences() -> Mapping[str, str]:
    """Path of a key or section -> one sentence about it."""
    with open(HELP, encoding="utf-8") as file:
        found: dict[str, str] = json.load(file)
    return found


class _Writer:
    def __init__(self, strict: bool) -> None:
        self._table = keys.table()
        self._strict = strict

    def section(self, section: ConfigSection, path: str) -> Schema:
        """The object at ``path``, which may be an old name of the section."""
        properties = dict(sorted(self._members(section)))
        found: Schema = {"type": "object", "properties": properties}
        if section.unknown == "forbidden":
            # "auto" is thrown away before names are looked at
            found["additionalProperties"] = False if self._strict else AUTO
        elif section.unknown == "ignored" and self._strict:
            found["patternProperties"] = {_COMMENT: {}}
            found["additionalProperties"] = False
        if not path:
            return found
        others = None if path == _PARAMS else of_kinds({*section.refuses, *OF_OBJECTS})
        if others is None or (not section.refuses and not section.alias_of):
            del found["type"]
            others = []
        described = {"description": self._about(path), **self._deprecated(path, section)}
        return {**described, "anyOf": [found, *others]} if others else {**described, **found}

    def _deprecated(self, path: str, section: ConfigSection) -> Schema:
        return _old(f"use {section.path}") if path != section.path else {}

    def _members(self, section: ConfigSection) -> Iterator[tuple[str, Schema]]:
        table, of = self._table, section.path
        for path in (p for p in table.keys if keys.parent(p) == of):
            key = table.keys[path]
            yield from self._named(path, key.field, self._key(key, section))
        for path in (p for p in table.sections if p and keys.parent(p) == of):
            child = table.sections[path]
            real = table.sections[child.alias_of] if child.alias_of else child
            yield from self._named(path, child.field, self.section(real, path))
        for path in (p for p in table.removed if keys.parent(p) == of):
            message = table.removed[path]
            yield path.rpartition(".")[2], {"description": message, "not": {}, **_old(message)}
        known = {*table.keys, *table.sections}
        for path in (p for p in sentences() if keys.parent(p) == of and p not in known):
            # an argument that is handed on unread
            yield path.rpartition(".")[2], {"description": self._about(path)}

    def _named(self, path: str, field: str, found: Schema) -> Iterator[tuple[str, Schema]]:
        """The key under its JSON name, and under DeepSpeed's own where that is another."""
        name = path.rpartition(".")[2]
        yield name, found
        if field:
            about = f"DeepSpeed's own name of {name}. {found['description']}"
            yield field, {**found, "description": about, "doNotSuggest": True}

    def _key(self, key: Key, section: ConfigSection) -> Schema:
        drops = section.parser == "pydantic"
        found: Schema = {"description": self._about(key.path)}
        if key.default is not None and not _is_absurd(key.default):
            found["default"] = key.default
        values = of_key(key, drops_auto=drops, strict=self._strict)
        if values is not None:
            found |= values[0] if len(values) == 1 else {"anyOf": values}
        if key.deprecated:
            found |= _old(f"use {key.replacement}" if key.replacement else "delete it")
        return found

    def _about(self, path: str) -> str:
        """Sentence, default, allowed words, and whether "auto" is filled."""
        key = self._table.keys.get(path)
        parts = [sentences()[path]]
        if key is not None and key.default is not None:
            parts.append(f"Default: {json.dumps(key.default)}.")
        if key is not None and key.allowed:
            parts.append(f"One of {', '.join(json.dumps(word) for word in key.allowed)}.")
        if path in _FILLED:
            parts.append('"auto" is filled by the Hugging Face Trainer or accelerate.')
        return " ".join(parts)


def _is_absurd(default: Any) -> bool:
    return isinstance(default, int | float) and abs(default) > _TOO_LARGE


def _old(message: str) -> Schema:
    """Marks of what is not to be written any more: of the standard, and of VS Code."""
    return {"deprecated": True, "deprecationMessage": message, "doNotSuggest": True}
