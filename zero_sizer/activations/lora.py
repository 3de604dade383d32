"""Activations that a LoRA adapter makes and keeps beside its linear layer.

Follows peft 0.21.2, tuners/lora/layer.py (``Linear.forward``): the input is cast to the adapter's
dtype, dropped out, multiplied by A and by B, scaled, and added to what the base layer made. Every
step below was compared with traces of transformers' models under adapters.
"""

from typing import NamedTuple

from zero_sizer.activations.levels import Level
from zero_sizer.units import DType, num_bytes


class Sizes(NamedTuple):
    """Of one micro step.

    Attributes:
        tokens: samples times their length.
        dtype: of activations.
        trained: of the adapter's weights as they are computed with.
        held: of the model's weights.
        built: of the weights as the script builds them, which packed ones are unpacked to.
        raw: adapters save what they are handed, in fp32, though autocast multiplies in 16 bits:
            ZeRO-3's linear layers do (runtime/zero/linear.py, setup_context).
    """

    tokens: int
    dtype: DType
    trained: DType
    held: DType
    built: DType
    raw: bool = False

    @property
    def casts(self) -> bool:
        """True if autocast multiplies weights in another dtype than their own."""
        return self.held is not self.dtype


class Adapted(NamedTuple):
    """A linear layer with an adapter.

    Attributes:
        name: of the module that holds both.
        into: features of its input.
        out: features of its output.
        rank: of the adapter.
        drops: it has dropout.
        is_late: its input comes from a product or an activation, in 16 bits under autocast.
        joins_residual: its output is added to the residual stream, which keeps its gradient.
    """

    name: str
    into: int
    out: int
    rank: int
    drops: bool
    joins_residual: bool
    is_late: bool = False

    def casts(self, of: Sizes) -> bool:
        """True if peft casts its input."""
        return of.trained is not of.dtype or (of.raw and self.is_late)

    def _input(self, of: Sizes) -> int:
        """Bytes of its input as A is handed it."""
        return num_bytes(of.tokens * self.into, DType.FP32 if of.raw else of.trained)

    def kept(self, of: Sizes) -> int:
        """Bytes that backward needs."""
        size = num_bytes(of.tokens * self.rank, of.trained)
        if self.drops or self.casts(of):
            size += self._input(of)
        return size + self.mask(of)

    def mask(self, of: Sizes) -> int:
        """Bytes of the mask of its dropout."""
        return of.tokens * self.into if self.drops else 0

    def forward(self, of: Sizes, level: int) -> list[Level]:
        """Steps from where the base layer has run; ``level`` is that of then."""
        cast = self._input(of)
        made = num_bytes(of.tokens * self.out, of.trained)
        inner = num_bytes(of.tokens * self.rank, of.trained)
        at = level + (cast if self.casts(of) else 0)
        steps = [Level(f"/{self.name}.base_layer", "", at, at)]
        if self.drops:
            at += cast + of.tokens * self.into
        at += inner
        runs = f"~{self.name}.lora_dropout.default {self.name}.lora_A.default"
        multiplied = num_bytes(of.tokens * self.into, of.dtype) if of.raw else 0
        steps.append(Level(runs, "", at + multiplied, at))
        at += made
        runs = f"/{self.name}.lora_A.default {self.name}.lora_B.default"
        steps.append(Level(runs, "", at, at))
        end = level + self.kept(of)
        steps.append(Level(f"/{self.name}.lora_B.default", "", at + made, end))
        return steps

    def waits(self, of: Sizes, *, is_first: bool) -> int:
        """Bytes that wait for the base layer's backward: the input's gradient, the output's."""
        size = num_bytes(of.tokens * self.into, of.dtype) if is_first else 0
        if of.trained is not of.dtype and self.joins_residual:
            size += num_bytes(of.tokens * self.out, of.dtype)
        return size

    def summed(self, of: Sizes) -> int:
        """Bytes of the input's gradient where another is added to it."""
        return num_bytes(of.tokens * self.into, of.dtype)

    def scaled(self, of: Sizes, level: int) -> Level:
        """The first step of backward: the gradient of what B made."""
        made = num_bytes(of.tokens * self.out, of.trained)
        casts = of.trained is not of.dtype
        at = level + made + (self.waits(of, is_first=False) if casts else 0)
        return Level(f"^~{self.name}", "", at + (made if casts else 0), at)

    def recomputed(self, of: Sizes, level: int, less: int) -> list[Level]:
        """Steps of a recomputation that ends where B's input is kept again.

        Args:
            of: sizes.
            level: where the base layer begins.
            less: bytes that callers let go of then.
        """
        output = level + num_bytes(of.tokens * self.out, of.dtype)
        cast, inner, made, _ = self.forward(of, output)
        inner_size = num_bytes(of.tokens * self.rank, of.trained)
        return [
            Level(f"~{self.name} {self.name}.base_layer", "", output, output),
            cast,
            inner,
            made._replace(end=level + self.kept(of) - less + inner_size),
        ]

    def backward(self, of: Sizes, level: int, *, is_first: bool) -> list[Level]:
        """Steps from B's own backward to where that of the base layer begins.

        Args:
            of: sizes.
            level: where they begin, the gradient of B's input made.
            is_first: no other layer made a gradient of the same input before.
        """
        own = num_bytes(of.tokens * self.into, of.dtype)
        cast = self._input(of)
        made = num_bytes(of.tokens * self.out, of.trained)
        inner = num_bytes(of.tokens * self.rank, of.trained)
        casts = self.casts(of)
        name, at = self.name, level
        steps = [Level("", f"{name}.lora_B.default.weight", at, at - made - inner)]
        at += cast - made - inner
        steps.append(Level(f"^{name}.lora_A.default", "", at, at))
        saved = cast if self.drops or casts else 0
        steps.append(Level("", f"{name}.lora_A.default.weight", at, at - inner - saved))
        at -= inner + saved
        if self.drops or casts:
            more = own if casts and not self.drops else cast
            left = at + own - cast - (of.tokens * self.into if self.drops else 0)
            steps.append(Level(f"^~{name}.lora_dropout.default", "", at + more, left))
            at = left
        if not is_first:  # summed up with what came before
            last = steps.pop()
            steps.append(last._replace(peak=max(last.peak, at + own), end=at - own))
        return steps

    def first_gradient(self, of: Sizes, level: int) -> Level:
        """The step in which the gradient of B's input is made."""
        at = level + num_bytes(of.tokens * self.rank, of.trained)
        return Level(f"^{self.name}.lora_B.default", "", at, at)
