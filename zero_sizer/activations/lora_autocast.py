"""A linear layer under a LoRA adapter where autocast multiplies in 16 bits and weights are fp32.

peft 0.21.2 (tuners/lora/layer.py, ``Linear.forward``) casts what comes in 16 bits to the adapter's
fp32 and drops out in fp32; each product then casts for itself. torch's products keep their casts
for backward (ATen/autocast_mode.cpp), ZeRO-3's what they were handed, and cast anew
(runtime/zero/linear.py, setup_context).
"""

from zero_sizer.activations.levels import Level
from zero_sizer.activations.lora import Adapted, Sizes
from zero_sizer.units import DType, num_bytes


class AutocastAdapted(Adapted):
    """See ``Adapted``."""

    __slots__ = ()

    def kept(self, of: Sizes) -> int:
        """Bytes that backward needs."""
        saved = self._wide(of) if self.drops or self.is_late else 0
        if not of.raw:
            saved = self._narrow(of) + self.cached(of)
        return saved + self._inner(of) + self.mask(of)

    def cached(self, of: Sizes) -> int:
        """Bytes of its weights' casts, where products keep them."""
        return 0 if of.raw else self._cast_a(of) + self._cast_b(of)

    def forward(self, of: Sizes, level: int) -> list[Level]:
        """Steps from where the base layer has run; ``level`` is that of then."""
        name, at = self.name, level + (self._wide(of) if self.is_late else 0)
        steps = [Level(f"/{name}.base_layer", "", at, at)]
        dropped = self._wide(of) + self.mask(of) if self.drops else 0
        multiplied = self._narrow(of) + self._cast_a(of)
        peak = at + dropped + multiplied + self._inner(of)
        at += self._inner(of)
        at += dropped if of.raw else multiplied + self.mask(of)
        steps.append(Level(f"~{name}.lora_dropout.default {name}.lora_A.default", "", peak, at))
        peak = at + self._cast_b(of) + self._made(of)
        at = peak - (self._cast_b(of) if of.raw else 0)
        steps.append(Level(f"/{name}.lora_A.default {name}.lora_B.default", "", peak, at))
        end = level + self.kept(of)
        steps.append(Level(f"/{name}.lora_B.default", "", at + self._made(of), end))
        return steps

    def waits(self, of: Sizes, *, is_first: bool) -> int:
        """Bytes of the input's gradient that wait for the base layer's."""
        return self.summed(of) if is_first else 0

    def summed(self, of: Sizes) -> int:
        """Bytes of the input's gradient where another is added to it."""
        return self._narrow(of) if self.is_late else self._wide(of)

    def joins_late(self, of: Sizes) -> bool:
        """True if the gradient from the base layer is cast before it joins the adapter's."""
        return not (of.raw or self.is_late)

    def scaled(self, of: Sizes, level: int) -> Level:
        """The first step of backward: the gradient of what B made."""
        at = level + self._made(of)
        return Level(f"^~{self.name}", "", at, at)

    def first_gradient(self, of: Sizes, level: int) -> Level:
        """The step in which the gradient of B's input is made."""
        at = level + self._inner(of)
        casts = self._cast_b(of) * (2 if of.raw else 1)  # the weight's, and its gradient's
        return Level(f"^{self.name}.lora_B.default", "", at + casts, at)

    def backward(self, of: Sizes, level: int, *, is_first: bool) -> list[Level]:
        """Steps from B's own backward to where that of the base layer begins.

        Args:
            of: sizes.
            level: where they begin, the gradient of B's input made.
            is_first: no other layer made a gradient of the same input before.
        """
        name, narrow, wide = self.name, self._narrow(of), self._wide(of)
        after = level - self._made(of) - self._inner(of) - (0 if of.raw else self._cast_b(of))
        steps = [Level("", f"{name}.lora_B.default.weight", level, after)]
        at = after + narrow
        peak = at + self._cast_a(of)
        if of.raw:  # casts of both factors, then that of the gradient
            peak = max(peak + narrow + self._cast_a(of), at + wide)
            at += wide - narrow
        steps.append(Level(f"^{name}.lora_A.default", "", peak, at))
        kept = self.kept(of) - self.mask(of) - self._inner(of)
        kept -= 0 if of.raw else self._cast_b(of)
        after = at - self._inner(of) - kept
        steps.append(Level("", f"{name}.lora_A.default.weight", at, after))
        steps.append(self._dropped_out(of, after))
        if not is_first:  # summed up with what came before
            last = steps.pop()
            own = self.summed(of)
            steps.append(last._replace(peak=max(last.peak, last.end + own), end=last.end - own))
        return steps

    def _dropped_out(self, of: Sizes, level: int) -> Level:
        """From the gradient of A's input, in 16 bits where A's product cast it, to the input's."""
        narrow, wide = self._narrow(of), self._wide(of)
        at = level if of.raw else level - narrow + wide
        peak = at if of.raw else at + narrow
        if self.drops:
            peak = max(peak, at + wide)
            at -= self.mask(of)
        if self.is_late:
            peak = max(peak, at + narrow)
            at += narrow - wide
        return Level(f"^~{self.name}.lora_dropout.default", "", peak, at)

    def _narrow(self, of: Sizes) -> int:
        return num_bytes(of.tokens * self.into, of.dtype)

    def _wide(self, of: Sizes) -> int:
        return num_bytes(of.tokens * self.into, DType.FP32)

    def _made(self, of: Sizes) -> int:
        return num_bytes(of.tokens * self.out, of.dtype)

    def _inner(self, of: Sizes) -> int:
        return num_bytes(of.tokens * self.rank, of.dtype)

    def _cast_a(self, of: Sizes) -> int:
        return num_bytes(self.into * self.rank, of.dtype)

    def _cast_b(self, of: Sizes) -> int:
        return num_bytes(self.out * self.rank, of.dtype)
