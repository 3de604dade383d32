"""From the config as written to every setting as DeepSpeed 0.19.8 holds it, with origins.

Severities: ERROR exactly where DeepSpeed's parser, its engine or Hugging Face's "auto" would raise;
WARNING where the file is accepted but does not do what it seems to say; NOTE otherwise.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zero_sizer.config import auto, keys, problems
from zero_sizer.config.batch import KEYS as BATCH_KEYS
from zero_sizer.config.batch import resolve_batch
from zero_sizer.config.document import Document
from zero_sizer.config.settings import Setting, Settings
from zero_sizer.config.values import RefusedError, convert, refusal
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding

if TYPE_CHECKING:
    from zero_sizer.models.spec import ModelSpec

DEFAULT = "DeepSpeed's default"
_AUTO = "auto"
_MOST_UNKNOWN = 50  # unknown keys of each kind that are listed
_BATCHING = "data_efficiency.data_sampling.dynamic_batching"
_DEMANDED = {
    "data_efficiency.data_sampling.curriculum_learning": "curriculum_metrics",
    _BATCHING: "max_tokens",
}


def resolve(
    document: Document, workload: Workload, *, world_size: int, model: "ModelSpec | None"
) -> tuple[Settings, list[Finding]]:
    """Resolve every known key.

    Args:
        document: the config as written.
        workload: what the flags say.
        world_size: ranks of the job.
        model: the model, for "auto" values that depend on its hidden size; None when not given.

    Returns:
        Settings for every key and section of the table, and what is wrong or worth knowing. A value
        that DeepSpeed refuses falls back to the default, and its finding says so.
    """
    resolver = _Resolver(document, auto.fill(document, workload, model))
    resolver.read_section("", document.values)
    resolver.add_filled()
    settings, findings = resolver.settings, resolver.findings
    batch, batch_findings = resolve_batch(document, workload, world_size)
    settings.update(batch)
    _fill_defaults(settings)
    _after_parsing(document, settings, findings)
    if not document.strict_json:
        hugging_face = resolver.any_auto
        findings.append(problems.not_strict_json(document, needs_hugging_face=hugging_face))
    if resolver.any_auto and not document.has("zero_optimization"):
        findings.append(problems.no_zero_section())
    everything = [*findings, *resolver.fills.findings, *batch_findings]
    return Settings(by_key=settings), sorted(everything, key=lambda finding: finding.line)


class _Resolver:
    """Walks the config beside the table; collects settings and findings."""

    def __init__(self, document: Document, fills: auto.Fills) -> None:
        self.document = document
        self.fills = fills
        self.table = keys.table()
        self.settings: dict[str, Setting] = {}
        self.findings: list[Finding] = []
        self.any_auto = any(value == _AUTO for _, value in document.leaves())
        self._written: dict[str, str] = {}  # canonical path -> path as written
        self._unknown: Counter[tuple[str, bool, bool]] = Counter()

    def read_section(self, path: str, values: Mapping[str, Any], written: str = "") -> None:
        """Read the object at ``path`` (canonical; ``written`` is the user's spelling)."""
        for name, value in values.items():
            self._read(path, name, keys.join(written, name), value)

    def add_filled(self) -> None:
        """Put in the keys that Hugging Face adds to a config without them."""
        for path, filled in self.fills.added.items():
            self.settings[keys.parent(path)] = Setting(True, filled.origin)
            self.settings[path] = Setting(filled.value, filled.origin)

    def _read(self, section: str, name: str, written: str, value: Any) -> None:
        path = keys.join(section, name)
        path = self.table.aliases.get(path, path)
        if not name or "." in name:  # one key with a dot in its name, not a path
            self._read_unknown(self.table.sections[section], path, written, value)
        elif path in self.table.removed:
            self.findings.append(problems.removed(self.document, written, self.table.removed[path]))
        elif path in BATCH_KEYS:
            return
        elif section == "optimizer" and name == "params" and not self._names_optimizer():
            self.settings[path] = Setting(False, self.document.where(written))
        elif path in self.table.sections:
            self._read_subsection(path, written, value)
        elif path in self.table.keys:
            self._read_key(self.table.keys[path], written, value)
        else:
            self._read_unknown(self.table.sections[section], path, written, value)

    def _names_optimizer(self) -> bool:
        """Without a type DeepSpeed does not look at the parameters (runtime/config.py:295)."""
        return self.document.get("optimizer.type") is not None

    def _read_subsection(self, path: str, written: str, value: Any) -> None:
        section = self.table.sections[path]
        if section.alias_of:
            if self.document.get(section.alias_of) is not None:
                self.findings.append(problems.shadowed(self.document, written, section.alias_of))
                return
            path = section.alias_of
        if isinstance(value, Mapping):
            if self._first(path, written):
                self.settings[path] = Setting(True, self.document.where(written))
                self.read_section(path, value, written)
            return
        exception = refusal(section.refuses, value)
        if exception:
            self.findings.append(problems.no_object(self.document, written, value, exception))
        elif path == "zero_optimization" and isinstance(value, bool):
            self._read_boolean_zero(written, value)
        elif value is not None and value != {}:
            self.findings.append(problems.ignored_section(self.document, written, value))

    def _read_boolean_zero(self, written: str, value: bool) -> None:
        """``zero_optimization: true`` is stage 1 (zero/config.py, read_zero_config_deprecated)."""
        where = self.document.where(written)
        self.settings["zero_optimization"] = Setting(value, where)
        self.settings["zero_optimization.stage"] = Setting(int(value), where)
        if value:
            size = self.document.get("allgather_size", 500_000_000)
            origin = (
                self.document.where("allgather_size")
                if self.document.has("allgather_size")
                else DEFAULT
            )
            key = self.table.keys["zero_optimization.allgather_bucket_size"]
            self.settings[key.path] = self._converted(key, "allgather_size", size, origin)
        self.findings.append(problems.boolean_zero(self.document, written, value))

    def _read_key(self, key: keys.Key, written: str, value: Any) -> None:
        filled = self.fills.by_path.get(written)
        if value == _AUTO and filled is not None:
            self.settings[key.path] = Setting(filled.value, filled.origin)
        elif value == _AUTO and self._is_dropped(key):
            self._drop_auto(key, written)
        elif self._first(key.path, written):
            origin = self.document.where(written)
            self.settings[key.path] = self._converted(key, written, value, origin)

    def _is_dropped(self, key: keys.Key) -> bool:
        """Pydantic sections throw "auto" away before they validate (runtime/config_utils.py:53)."""
        return self.table.sections[keys.parent(key.path)].parser == "pydantic"

    def _drop_auto(self, key: keys.Key, written: str) -> None:
        origin = f'"auto" ({self.document.where(written)}): dropped, {DEFAULT}'
        self.settings[key.path] = Setting(key.default, origin)
        if key.default != _AUTO:
            self.findings.append(problems.auto_dropped(self.document, written, key))

    def _first(self, path: str, written: str) -> bool:
        """False, with a finding, when the same key was already given under its other name."""
        before = self._written.setdefault(path, written)
        if before != written:
            self.findings.append(problems.twice(self.document, written, before))
        return before == written

    def _converted(self, key: keys.Key, written: str, value: Any, origin: str) -> Setting:
        try:
            result = convert(key, value)
        except RefusedError as refused:
            self.findings.append(problems.refused(self.document, written, key, refused))
            return Setting(key.default, f"{DEFAULT}, as {origin} is refused", is_default=True)
        self.findings += problems.about_value(self.document, written, key, value, result)
        return Setting(result, origin)

    def _read_unknown(
        self, section: keys.ConfigSection, path: str, written: str, value: Any
    ) -> None:
        if section.unknown == "kept":
            self._keep(path, written, value)
        else:
            kind = section.unknown, value == _AUTO, path.rpartition(".")[2][:1] in problems.COMMENTS
            self._unknown[kind] += 1
            if self._unknown[kind] <= _MOST_UNKNOWN:
                finding = problems.unknown(self.document, section, path, written)
                if self._unknown[kind] == _MOST_UNKNOWN:
                    more = f"{finding.message}; further ones are not listed"
                    finding = replace(finding, message=more)
                self.findings.append(finding)

    def _keep(self, path: str, written: str, value: Any) -> None:
        """A key that DeepSpeed hands on unread: optimizer and scheduler arguments, and the like."""
        filled = self.fills.by_path.get(written)
        if value == _AUTO and filled is not None:
            self.settings[path] = Setting(filled.value, filled.origin)
        else:
            self.settings[path] = Setting(value, self.document.where(written))


def _fill_defaults(settings: dict[str, Setting]) -> None:
    table = keys.table()
    for path, key in table.keys.items():
        settings.setdefault(path, Setting(key.default, DEFAULT, is_default=True))
    for path, section in table.sections.items():
        if path and not section.alias_of:
            settings.setdefault(path, Setting(False, DEFAULT, is_default=True))


def _after_parsing(
    document: Document, settings: dict[str, Setting], findings: list[Finding]
) -> None:
    """What DeepSpeed does to the values once they are parsed."""
    _replace_deprecated(document, settings, findings)
    overlap = settings["zero_optimization.overlap_comm"]
    if overlap.value is None:  # overlap_comm_valid (zero/config.py:379)
        stage = settings["zero_optimization.stage"].value
        origin = f"{DEFAULT} at stage {stage}"
        settings["zero_optimization.overlap_comm"] = Setting(stage == 3, origin, overlap.is_default)
    findings += _demands(document, settings)
    name = settings["optimizer.type"]
    if isinstance(name.value, str) and name.value.lower() in keys.table().optimizers:
        settings["optimizer.type"] = Setting(name.value.lower(), name.origin)


def _demands(document: Document, settings: Mapping[str, Setting]) -> list[Finding]:
    """Keys that become required once their section is on (data_pipeline/config.py:84, 107)."""
    findings = []
    for section, name in _DEMANDED.items():
        if settings[f"{section}.enabled"].value and not document.has(f"{section}.{name}"):
            findings.append(problems.demanded(document, section, name))
    tokens = f"{_BATCHING}.{_DEMANDED[_BATCHING]}"
    if settings[f"{_BATCHING}.enabled"].value and document.has(tokens):
        try:
            int(document.get(tokens))
        except (TypeError, ValueError, OverflowError) as error:
            findings.append(problems.no_integer(document, tokens, error))
    return findings


def _replace_deprecated(
    document: Document, settings: dict[str, Setting], findings: list[Finding]
) -> None:
    """Move deprecated keys to what replaces them (config_utils._process_deprecated_field)."""
    zero = "zero_optimization"
    for old, new in (
        ("cpu_offload_param", "offload_param"),
        ("cpu_offload", "offload_optimizer"),
        ("stage3_gather_fp16_weights_on_model_save", "stage3_gather_16bit_weights_on_model_save"),
    ):
        setting, target = settings[f"{zero}.{old}"], f"{zero}.{new}"
        if not _given(document, f"{zero}.{old}"):
            continue
        if _given(document, target) or _given(document, _field_name(target)):
            findings.append(problems.old_and_new(document, f"{zero}.{old}", target))
        elif new.startswith("stage3"):
            settings[target] = Setting(setting.value, setting.origin)
        elif setting.value:
            settings[target] = Setting(True, setting.origin)
            settings[f"{target}.device"] = Setting("cpu", setting.origin)


def _field_name(path: str) -> str:
    key = keys.table().keys.get(path)
    return keys.join(keys.parent(path), key.field) if key is not None and key.field else path


def _given(document: Document, path: str) -> bool:
    return document.has(path) and document.get(path) != _AUTO
