"""Activations of a model of which parts are frozen or adapted, from the profile of its base.

A profile tells what training every weight holds. Frozen parts keep less of that (``frozen``,
``closed_regions``), adapted ones more (``lora``): storages of known size, made and let go of at
known modules. So the base's steps are walked once, and each level is shifted by what differs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zero_sizer.activations import autocast_products, changed_ends, frozen
from zero_sizer.activations.branches import Branches
from zero_sizer.activations.changed_blocks import Rules, pieces, rules_of
from zero_sizer.activations.closed_regions import Closed, closed_of
from zero_sizer.activations.levels import (
    Activations,
    ComposedPart,
    ComposedSection,
    Level,
    MicroStep,
    PartLevels,
    SectionLevels,
    StepLevels,
)
from zero_sizer.activations.lora import Adapted, Sizes
from zero_sizer.activations.lora_autocast import AutocastAdapted
from zero_sizer.activations.structure import LEARNED_POSITIONS
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import num_bytes
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity

_NOTHING = ComposedSection((Level("", "", 0, 0),))


class How(NamedTuple):
    """Properties of a job that decide what layers keep.

    Attributes:
        sizes: of one micro step.
        recomputes: blocks are checkpointed.
        saves_inputs: linear layers keep their inputs, trained or not, as ZeRO-3's do; None where
            nobody compared.
        keeps_outputs: attention keeps its output, as all kernels do.
        is_flash: the kernel is flash attention's, whose output lies as its queries do.
        opens: the embedding's output requires a gradient (``enable_input_require_grads``, which
            checkpointing switches on).
        scatters: features of images are put into what the embedding returns.
    """

    sizes: Sizes
    recomputes: bool
    saves_inputs: bool
    keeps_outputs: bool
    is_flash: bool
    opens: bool
    scatters: bool = False


def with_changes(
    step: MicroStep, spec: ModelSpec, how: How, ungraded: MicroStep | None = None
) -> Activations:
    """One micro step of ``spec``, whose base's is ``step``.

    Args:
        step: of the base, every weight trained.
        spec: the model.
        how: the job does.
        ungraded: the base's step whose blocks run forward without gradients; None: not known.
    """
    return _with_changes(Identity(step), Identity(spec), how, Identity(ungraded))


@cached_large(maxsize=64)  # jobs of other clusters and offloads have the same step
def _with_changes(of: Identity, model: Identity, how: How, without: Identity) -> Activations:
    step: MicroStep = of.of
    spec: ModelSpec = model.of
    ungraded: MicroStep | None = without.of
    found: list[ComposedPart] = []
    reached = False
    branches = Branches()
    uncached = held = ended = 0
    for part in step.parts:
        for piece in pieces(spec, part, is_first_apart=not reached):
            rules = rules_of(spec, piece.blocks, piece.first)
            run = _run(piece.forward)
            trains = rules.trains(run, (name for _, name in piece.backward.labels))
            branch = branches.enter(rules, piece.blocks, run, trains=trains)
            if branch is None or how.opens:  # a tower's inputs are opened, too
                branch = reached, reached or trains
            is_open, keeps = branch
            closed = Closed() if is_open else closed_of(rules, run, piece, ungraded)
            if how.opens and not found and not trains:
                leaf = _embedded(rules, how)
                held, ended = held - leaf, ended + leaf
            reached = reached or trains
            walk = _Walk(rules, how, run, closed)
            found.append(_part(piece, walk, trains, reached=keeps, is_first=not found))
            uncached += piece.count * walk.uncached
            ended += piece.count * walk.until_the_end
            held += 0 if how.recomputes else walk.held_by_model
            if how.opens:
                reached = True
    around = rules_of(spec, "", 0).opens()
    found[0] = changed_ends.over(changed_ends.within(found[0], around), ended)
    *others, last = found
    return Activations((*others, changed_ends.ending(last, uncached, held)))


def _run(forward: SectionLevels) -> list[str]:
    """Modules that own parameters, in the order in which they run."""
    tokens = (token for runs, _ in forward.labels for token in runs.split())
    return [token for token in tokens if token[0] not in "~/^"]


def _embedded(rules: Rules, how: How) -> int:
    """Bytes of what frozen embeddings return, where positions are added to it, or images put in.

    It is a leaf that requires a gradient, which autograd holds until the graph is gone; elsewhere
    it is the first block's input.
    """
    embedding, arch = next(iter(rules.own.values()), None), rules.spec.arch
    if embedding is None or not (how.scatters or arch.family in LEARNED_POSITIONS):
        return 0
    width = (how.scatters and arch.hidden) or embedding.shape[-1]
    return num_bytes(how.sizes.tokens * width, how.sizes.held)


def _part(
    piece: PartLevels, walk: "_Walk", trains: bool, *, reached: bool, is_first: bool
) -> ComposedPart:
    blocks = walk.rules.blocks_of(piece.blocks)
    keeps = reached and not (walk.how.recomputes and piece.blocks)
    forward = walk.section(piece.forward, keeps=keeps)
    if not reached and piece.blocks:  # its output takes the place of its input
        *others, last = forward.steps
        forward = ComposedSection((*others, last._replace(end=0)))
    backward = _NOTHING
    if is_first and not trains and not piece.blocks:
        backward = walk.opened(piece.backward)
    elif reached:
        backward = walk.section(piece.backward, keeps=True)
    if reached and piece.blocks and walk.how.recomputes:
        forward, backward = changed_ends.holding(forward, backward, walk.beside_autograd())
    return ComposedPart(blocks, piece.first, piece.count, forward, backward)


class _Walk:
    """Goes through sections of the base's and shifts their levels.

    Args:
        rules: of the block.
        how: the job does.
        run: modules in the order in which they run forward.
        closed: those whose input carries no gradient.
    """

    def __init__(self, rules: Rules, how: How, run: list[str], closed: Closed) -> None:
        self.rules = rules
        self.how = how
        self._run = run
        self._closed = closed.names
        keeps_outputs = how.keeps_outputs and not (how.is_flash and rules.copies_outputs)
        saves = {"saves_inputs": how.saves_inputs, "keeps_outputs": keeps_outputs}
        self._unsaved = frozen.unsaved(rules, run, how.sizes, closed=closed, **saves)
        if not how.keeps_outputs:
            self._unsaved += frozen.of_scores(rules, run, how.sizes, closed)
        self._alone = frozen.kept_by_adapters(rules, run, how.sizes, closed=closed, **saves)
        self._beside = frozen.beside_autograd(rules, run, how.sizes, keeps_outputs=keeps_outputs)
        self.until_the_end = 0  # bytes of it that go with the graph
        adapted = rules.adapted.items()
        self._adapted = {n: AutocastAdapted(*a) if how.sizes.casts else a for n, a in adapted}
        self._joins: list[str] = []  # their input's gradient is summed up in the next step
        self._shift = 0
        self._out: list[Level] = []
        self._next: list[str] = []  # words of the next step
        self._waiting = False  # recomputation comes first, or runs
        self._again = ""  # the adapted layer with which it ends
        self.uncached = 0  # bytes of weights' casts that the base keeps until forward is over

    def section(self, section: SectionLevels, *, keeps: bool) -> ComposedSection:
        """The section as it is here; ``keeps``: what backward needs stays."""
        self._shift, self._out, self._next = 0, [], []
        steps: Sequence[StepLevels] = section.steps
        if keeps and self.how.sizes.casts:
            steps = autocast_products.without_weights(steps, self.rules, self.how.sizes)
        ends, stops = _ends(steps), _stops(steps)
        said = {token for step in steps for token in tokens_of(step)}
        before = 0
        for number, step in enumerate(steps):
            self._waiting = number <= stops
            tokens = self._enter(step, before, keeps=keeps)
            self._free(tokens_of(step), keeps=keeps, is_start=True)
            if tokens is not None:
                peak = step.peak + self._shift + self.rules.scratch(tokens, self.how.sizes)
                over = ends.get(number, ())
                self._release(over)
                peak = self._join(peak, step.end, over)
                completes = self.rules.completed(step.completes) or self.rules.completed_by(tokens)
            self._free(tokens_of(step), keeps=keeps, is_start=False)
            if number == stops and keeps:
                self._shift -= sum(s.num_bytes for s in self._unsaved if s.made not in said)
            if tokens is not None:
                self._out.append(Level(" ".join(tokens), completes, peak, step.end + self._shift))
            before = step.end
        return ComposedSection(tuple(self._out))

    @property
    def held_by_model(self) -> int:
        """Bytes that nothing keeps for backward, and that go where the model's forward is over."""
        return sum(s.num_bytes for s in self._unsaved if s.made == frozen.HELD_BY_MODEL)

    def beside_autograd(self) -> int:
        """Bytes that layers keep where checkpointing does not see it."""
        return sum(self._beside.values())

    def opened(self, backward: SectionLevels) -> ComposedSection:
        """The backward of embeddings that are frozen.

        ZeRO-3 fetches the one whose output requires a gradient all the same.
        """
        if not self.how.opens:
            return _NOTHING
        own = self._run[0] if self._run else ""
        tokens = (token for runs, _ in backward.labels for token in runs.split())
        words = [t for t in tokens if t.startswith("^~") or t == f"^{own}"]
        runs = " ".join(word for token in words for word in self.rules.renamed(token))
        return ComposedSection((Level(runs, "", 0, 0),))

    def _enter(self, step: StepLevels, before: int, *, keeps: bool) -> list[str] | None:
        """The step's words here, after the adapters' steps that come before them.

        None: the adapter's steps take the place of the step.
        """
        tokens, self._next = self._next, []
        sizes = self.how.sizes
        for token in tokens_of(step):
            name = token.lstrip("~/^")
            self._end_casts(token, keeps=keeps)
            level = before + self._shift
            self._shift -= self.rules.shared_gradient(token, sizes)
            adapted = None if token.startswith("~") else self._adapted.get(name)
            if adapted is None:
                is_over = token.startswith("^") and name in self._closed
                is_over = is_over and not self.rules.is_trained(f"{name}.weight")
                tokens += [] if is_over else self.rules.renamed(token)
            elif token.startswith("/"):
                self._emit(adapted.forward(sizes, level), tokens)
                self._shift += self._kept(adapted, name) if keeps else 0
            elif token.startswith("^"):
                scaled = adapted.scaled(sizes, level)
                self._emit([scaled], tokens)
                self._shift += scaled.end - level
                if self._waiting:  # for what it kept, which is made again first
                    tokens.append(f"^{adapted.name}.lora_B.default")
                    self._again = name
                else:
                    first = adapted.first_gradient(sizes, scaled.end)
                    self._out.append(first)
                    self._shift += first.end - scaled.end
                    self._backward(adapted, name, before)
                    tokens += self._base_backward(adapted, name)
            elif name == self._again:
                product = autocast_products.product_of(self.rules, name, sizes)
                cast = product.weight if product and sizes.casts and not product.raw else 0
                again = adapted.recomputed(sizes, level + cast, before - step.end + cast)
                self._emit(again, tokens)
                self._shift += again[-1].end - level - (step.end - before)
                self._again = ""
                self._backward(adapted, name, step.end)
                self._next = self._base_backward(adapted, name)
                return None
            else:
                tokens += [f"~{adapted.name}", f"{adapted.name}.base_layer"]
        return tokens

    def _end_casts(self, token: str, *, keeps: bool) -> None:
        """A layer has run: autocast's casts go that nobody keeps."""
        if not token.startswith("/"):
            return
        if not keeps:
            self._uncache(token[1:])
            return
        for storage in self._unsaved:
            if storage.is_cast and storage.made == token:
                self._shift -= storage.num_bytes

    def _uncache(self, name: str) -> None:
        """autocast keeps casts of what is trained alone (ATen/autocast_mode.cpp, cached_cast)."""
        of = self.how.sizes
        weight = self.rules.own.get(f"{name}.weight")
        if self.how.saves_inputs or of.held is of.dtype or weight is None:
            return
        if not self.rules.is_product(name) or frozen.transposes(weight):
            return  # autocast keeps no cast of a view
        owned = (f"{name}.weight", f"{name}.bias")
        size = sum(
            num_bytes(self.rules.own[own].numel, of.dtype)
            for own in owned
            if own in self.rules.own and not self.rules.is_trained(own)
        )
        adapted = self._adapted.get(name)
        if isinstance(adapted, AutocastAdapted):
            size -= adapted.cached(of)
        self._shift -= size
        self.uncached += size

    def _kept(self, adapted: Adapted, name: str) -> int:
        """What the adapter keeps; a mask is for the gradient of its input."""
        sizes = self.how.sizes
        mask = adapted.mask(sizes) if name in self._closed else 0
        return adapted.kept(sizes) - mask

    def _base_backward(self, adapted: Adapted, name: str) -> list[str]:
        """The word for the base layer's backward, which makes the gradient of its input."""
        return [] if name in self._closed else [f"^{adapted.name}.base_layer"]

    def _backward(self, adapted: Adapted, name: str, before: int) -> None:
        """The adapter's own, whose first gradient is made."""
        level = before + self._shift
        is_first = self.rules.is_first(name, self._run)
        steps = adapted.backward(self.how.sizes, level, is_first=is_first)
        if name in self._alone:
            steps[-1] = steps[-1]._replace(end=steps[-1].end - self._alone[name].num_bytes)
        self._out += steps
        self._shift += steps[-1].end - level

    def _emit(self, steps: list[Level], tokens: list[str]) -> None:
        first, *others = steps
        self._out += [first._replace(runs=" ".join((*tokens, first.runs))), *others]
        tokens.clear()

    def _join(self, peak: int, end: int, over: tuple[str, ...]) -> int:
        """The peak where base layers' backward is over and their gradients join the adapters'."""
        due, self._joins = self._joins, []
        for name in over:
            adapted = self._adapted.get(name)
            if isinstance(adapted, AutocastAdapted) and adapted.joins_late(self.how.sizes):
                self._joins.append(name)
            elif adapted is not None:
                due.append(name)
        for name in due:
            is_first = self.rules.is_first(name, self._run)
            adapted = self._adapted[name]
            if is_first:
                peak = max(peak, end + self._shift + adapted.summed(self.how.sizes))
            self._shift -= adapted.waits(self.how.sizes, is_first=is_first)
        return peak

    def _free(self, tokens: list[str], *, keeps: bool, is_start: bool) -> None:
        """What is not kept goes where it was needed last."""
        for storage in self._unsaved if keeps else ():
            is_due = storage.is_held == (not is_start) and not storage.is_cast
            if is_due and storage.made in tokens:
                self._shift -= storage.num_bytes

    def _release(self, over: tuple[str, ...]) -> None:
        """What the base lets go of, and was not there."""
        for storage in (*self._unsaved, *self._alone.values()):
            if storage.freed in over:
                self._shift += storage.num_bytes
        for name, size in () if self.how.recomputes else self._beside.items():
            if name in over and name not in self._closed:
                self._shift += size
                self.until_the_end += size


def tokens_of(step: StepLevels) -> list[str]:
    """The words of a step."""
    return step.runs.split()


def _stops(steps: Sequence[StepLevels]) -> int:
    """The last step of a recomputation; -1 where nothing is computed again."""
    words = [tokens_of(step) for step in steps]
    if not any(token.startswith("^") for row in words for token in row):
        return -1
    again = [n for n, row in enumerate(words) if any(token[0] != "^" for token in row)]
    return again[-1] if again else -1


def _ends(steps: Sequence[StepLevels]) -> Mapping[int, tuple[str, ...]]:
    """Step -> the modules whose own backward is over where it ends, and tensors' names."""
    last: dict[str, int] = {}
    begun: dict[str, int] = {}
    for number, step in enumerate(steps):
        for token in tokens_of(step):
            if token.startswith("^"):
                begun[token.lstrip("^~")] = number
        if step.completes:
            last[step.completes] = last[step.completes.rpartition(".")[0]] = number
    found: dict[int, tuple[str, ...]] = {}
    for module, number in (begun | last).items():
        found[number] = (*found.get(number, ()), module)
    return found
