"""An inference profile: prefill and decode of one structure, traced without gradients.

transformers' own ``generate`` runs on the simulated GPU with a budget of three new tokens: its
first forward is the prefill, the second a decode that finds what the prefill left, the third one
like all that follow. With ``score`` the model is called once and returns every position's logits.
"""

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch

from zero_sizer.activations import inference as stored
from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator.patches import generation
from zero_sizer.simulator.undo import Patches
from zero_sizer.tracing import build, fitted, session, setups, symbolic
from zero_sizer.tracing.depth import stacks_of
from zero_sizer.tracing.family import Assembly
from zero_sizer.tracing.fitted import Range
from zero_sizer.tracing.inference_levels import Levels
from zero_sizer.tracing.profile import head_of
from zero_sizer.tracing.recorder import Recorder
from zero_sizer.tracing.setups import Points
from zero_sizer.tracing.step import Trace
from zero_sizer.tracing.symbolic import Poly
from zero_sizer.tracing.widths import (
    PRODUCTS,
    UNIT,
    Constants,
    Envelope,
    Products,
    Solver,
    sparse,
)

_DTYPES = {16: torch.bfloat16, 32: torch.float32}
_WINDOWS: Products = tuple(
    (window, *others)
    for window in ("window", "window_before")
    for others in ((), ("heads",), ("heads", "head_dim"), ("kv_heads", "head_dim"))
)
_LONGEST = 2**20
NEW_TOKENS = 3


class Way(NamedTuple):
    """One way of running a model.

    Attributes:
        mode: ``generate`` or ``score``.
        attention: ``flash``, ``sdpa`` or ``eager``.
        bits: of the weights: 16 or 32.
    """

    mode: str
    attention: str
    bits: int


def ways(modes: Sequence[str] = ("generate", "score")) -> Iterator[Way]:
    """Every way that holds more or less than another."""
    for mode in modes:
        for bits in _DTYPES:
            for attention in build.ATTENTION:
                if attention != "flash" or bits == 16:
                    yield Way(mode, attention, bits)


class Tracer:
    """Traces a model at a depth that shows every kind of block.

    Args:
        fields: of a config.json.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.config = build.config_of(fields)
        self.config.use_cache = True
        self.model_class = build.model_class(self.config).__name__
        full = build.build(self.config, torch.bfloat16, torch.device("meta"), "eager")
        names = build.block_names(full)
        found = build.kinds(full, names)
        if len(stacks_of(names, found)) != 1:
            raise UnsupportedError("models of several stacks are not traced for inference")
        order = list(dict.fromkeys(found))
        self.kinds = [order.index(kind) for kind in found]
        self.depth = stored.traced_depth(self.kinds)
        self.traced = self.kinds[: self.depth]
        build.shorten(self.config, [self.depth])
        self.windows = build.windows(self.config)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Smallest and largest number of tokens of each kind of attention mask."""
        low = 1
        for window in self.windows:
            yield low, window - 1
            low = window
        yield low, _LONGEST

    @contextmanager
    def traces(self, way: Way) -> Iterator[Callable[[int, int], Trace]]:
        """A function that traces the run at (b, s).

        Raises:
            UnsupportedError: transformers does not run the model so.
        """
        recorder = Recorder()
        with session.fake_gpu(recorder) as where:
            changed = Patches()
            generation.install(changed, NEW_TOKENS, [])
            try:
                attention = build.ATTENTION[way.attention]
                model = build.build(self.config, _DTYPES[way.bits], where, attention).eval()
                if way.mode == "generate" and not model.can_generate():
                    raise UnsupportedError(f"{self.model_class} generates nothing")
                _mark(model, recorder)

                @cache
                def trace(b: int, s: int) -> Trace:
                    return _run(model, recorder, way.mode, b, s, where)

                yield trace
            finally:
                changed.undo()
                model = None
                gc.collect()


def _run(model: Any, recorder: Recorder, mode: str, b: int, s: int, where: Any) -> Trace:
    ids = torch.zeros((b, s), dtype=torch.long, device=where)
    mask = torch.ones_like(ids)
    recorder.events, recorder.sizes, recorder.flops = [], [], []
    recorder.on = True
    try:
        with torch.no_grad():
            if mode == "generate":
                found = model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                    pad_token_id=0,
                )
            else:
                found = model(input_ids=ids, attention_mask=mask)
    finally:
        recorder.on = False
    trace = Trace(events=tuple(recorder.events), sizes=tuple(recorder.sizes), flops=())
    del found
    return trace


def _mark(model: Any, recorder: Recorder) -> None:
    blocks = set(build.block_names(model))
    for name, module in model.named_modules():
        if name in blocks:
            kinds = ("enter", "leave")
        elif not name:
            kinds = ("loss", "backward")  # stand for the model's own beginning and end
        elif any(True for _ in module.parameters(recurse=False)):  # ZeRO-3 gathers them for it
            kinds = ("module", "ends")
        else:
            kinds = ("passes", "")  # it lets ZeRO-3 prefetch once more
        module.register_forward_pre_hook(_marker(recorder, kinds[0], name))
        if not kinds[1]:
            continue
        module.register_forward_hook(_marker(recorder, kinds[1], name))


def _marker(recorder: Recorder, kind: str, name: str) -> Any:
    def hook(module: Any, *_: Any) -> None:
        recorder.mark(kind, name)

    return hook


def trace(
    members: Sequence[tuple[Mapping[str, Any], Mapping[str, int]]],
    *,
    name: str,
    realistic: Sequence[Mapping[str, int]],
    window: int | None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Traces a structure at the widths of its ``members``, or one model alone.

    Args:
        members: fields of a config.json, and its widths; of one model alone, no widths.
        name: what to call it.
        realistic: widths at which peaks are told apart.
        window: tokens of the members' window of attention.
        report: told about each way.

    Raises:
        UnsupportedError: transformers runs none of them.
        WitnessError: the members differ in more than sizes.
    """
    tracers = [Tracer(fields) for fields, _ in members]
    is_family = len(members) > 1
    builder = _Builder([w for _, w in members] if is_family else None, realistic)
    rows: list[dict[str, Any]] = []
    seen: dict[Any, list[dict[str, Any]]] = {}
    for way in ways():
        try:
            with tracers[0].traces(way) as probe:
                key = (way.mode, way.bits, *(_content(probe(3, s)) for s in _probes(tracers[0])))
            if key not in seen:
                seen[key] = list(_fits(tracers, way, builder))
        except UnsupportedError:
            continue
        rows += [{"mode": way.mode, "attention": way.attention, "bits": way.bits, **fit}
                 for fit in seen[key]]  # fmt: skip
        report(f"{name}: {way.mode}, {way.attention}, {way.bits} bits")
    if not rows:
        raise UnsupportedError(f"{name}: no way to run it")
    head = head_of(name, "", tracers[0].model_class)
    numbered = builder.rows(rows)
    return {
        **{key: head[key] for key in ("name", "model_class", "versions")},
        **builder.document(),
        "schema_version": stored.SCHEMA_VERSION,
        "kinds": sorted(set(tracers[0].kinds)) if is_family else tracers[0].kinds,
        "window": window,
        "rows": numbered,
    }


def _probes(tracer: Tracer) -> list[int]:
    return [448, *(window + 448 for window in tracer.windows)]


def _content(trace: Trace) -> Any:
    return trace.events, trace.sizes


def _fits(tracers: Sequence[Tracer], way: Way, builder: "_Builder") -> Iterator[dict[str, Any]]:
    """Where each fit holds, and its phases; one sample apart, since torch copies less of it."""
    where = [p for window in tracers[0].ranges() for p in setups.points_of(window)[::-1]]
    sized: list[list[tuple[Trace, list[Poly]]]] = [[] for _ in where]
    for tracer in tracers:  # whose windows differ, but not what is traced within and beyond
        own = [p for window in tracer.ranges() for p in setups.points_of(window)[::-1]]
        with tracer.traces(way) as run:
            for points, found in zip(own, sized, strict=True):
                traces = setups.traces_at(run, points)
                sizes, _ = fitted.fit_sizes(traces, points.held_out, points.where)
                found.append((next(iter(traces.values())), sizes))
    for points, found in zip(where, sized, strict=True):
        yield {**_where(points), "phases": builder.phases(found, tracers[0].traced)}


def _where(points: Points) -> dict[str, Any]:
    where: Range = points.where
    return {"is_alone": not where.with_batch, "sequence": list(where.sequences)}


class _Builder:
    """Polynomials of a document: of widths for a family, of batch and sequence alone for a model.

    Args:
        widths: of the family's members, None for one model alone.
        realistic: widths at which peaks are told apart.
    """

    def __init__(
        self, widths: Sequence[Mapping[str, int]] | None, realistic: Sequence[Mapping[str, int]]
    ) -> None:
        self._constants = Constants()
        self._polynomials: dict[str, int] = {}
        self._assembly = None
        self._products: Products = ((),)
        if widths is not None:
            has_window = all(of["window"] for of in widths)
            self._products = (*PRODUCTS, *_WINDOWS) if has_window else PRODUCTS
            envelope = Envelope(realistic, self._constants, self._products)
            solver = Solver(widths, self._products)
            self._assembly = Assembly(solver, self._constants, envelope)
            self._envelope: Callable[[Sequence[Poly]], Sequence[Poly]] = envelope.of
        else:
            self._envelope = _envelope_of_one

    def phases(
        self, sized: Sequence[tuple[Trace, Sequence[Poly]]], kinds: Sequence[int]
    ) -> list[dict[str, Any]]:
        first = sized[0][0]
        if self._assembly is None:
            sizes = [fitted.rounded(poly) for poly in sized[0][1]]
        else:
            fitted.check_alike({(i, 0): found for i, (found, _) in enumerate(sized)})
            rows = zip(*(polys for _, polys in sized), strict=True)
            sizes = [self._assembly.wide(polys) for polys in rows]
        return Levels(first.events, sizes, kinds, self._envelope).phases()

    def rows(self, value: Any) -> Any:
        """A document's part with the number of each polynomial in its place."""
        if isinstance(value, dict):
            return {key: self.rows(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return self._number(value)
        return [self.rows(item) for item in value] if isinstance(value, list) else value

    def _number(self, poly: Poly) -> int:
        is_family = self._assembly is not None
        terms = (
            sparse(poly, len(self._products))
            if is_family
            else [[i, 0, c] for i, c in enumerate(_moved(poly)) if c]
        )
        return self._polynomials.setdefault(json.dumps(terms), len(self._polynomials))

    def document(self) -> dict[str, Any]:
        """Polynomials of all rows, and what they are made of."""
        is_family = self._assembly is not None
        return {
            "unit": UNIT if is_family else 1,
            "products": [list(product) for product in self._products],
            "rounded": [[list(t) for t in terms] for terms in self._constants.numbers],
            "polynomials": [json.loads(text) for text in self._polynomials],
        }


def _moved(poly: Poly) -> tuple[int, ...]:
    """In the order of a profile's monomials."""
    one, s, b, bs, ss, bss, bb = poly
    return bs, one, s, b, ss, bss, bb


def _envelope_of_one(polys: Sequence[Poly]) -> Sequence[Poly]:
    return symbolic.envelope(polys, with_batch=True, sequences=(1, _LONGEST))
