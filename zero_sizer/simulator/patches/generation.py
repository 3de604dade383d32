"""``generate()`` with a budget of new tokens, since sequences end where their values say.

transformers' own loop runs: prefill, one forward for each token, a cache that grows. It ends when
the budget is used up, or at the script's own ``max_new_tokens`` if that is less.
"""

from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator.undo import Patches

NOTE = "generate() made {} new tokens for each sequence (--generate-tokens): none ended before"


def install(patches: Patches, tokens: int | None, notes: list[str]) -> None:
    """Ends every generation after ``tokens`` new tokens; None refuses to begin one."""
    from transformers import GenerationMixin

    if tokens is None:
        patches.set(GenerationMixin, "generate", _refused)
        return
    budget = _Budget(tokens, notes)
    patches.set(GenerationMixin, "generate", budget.around(GenerationMixin.generate))
    patches.set(
        GenerationMixin,
        "_has_unfinished_sequences",
        lambda model, *args, **kwargs: budget.goes_on(),
    )


def _refused(model: Any, *args: object, **kwargs: object) -> None:
    """Without values no sequence ever ends."""
    raise UnsupportedError(
        "generate(): when its sequences end depends on values",
        remedy="say how many tokens each makes: --generate-tokens 256",
    )


class _Budget:
    """Counts the tokens of the generation that runs."""

    def __init__(self, tokens: int, notes: list[str]) -> None:
        self._tokens = tokens
        self._notes = notes
        self._left = tokens

    def around(self, original: Any) -> Any:
        """``generate`` that starts with the whole budget."""
        note = NOTE.format(self._tokens)

        def generate(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._left = min(self._tokens, _stated(model, args, kwargs) or self._tokens)
            if note not in self._notes:
                self._notes.append(note)
            return original(model, *args, **kwargs)

        return generate

    def goes_on(self) -> bool:
        """True if another token is made."""
        self._left -= 1
        return self._left >= 0


def _stated(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """``max_new_tokens`` of the call, its generation config, or the model's; or ``max_length``."""
    longest: Any = kwargs.get("max_length")
    if longest is not None and not kwargs.get("max_new_tokens"):
        inputs: Any = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
        has_prompt = not model.config.is_encoder_decoder and hasattr(inputs, "shape")
        return max(int(longest) - (inputs.shape[-1] if has_prompt else 1), 1)
    for source in (kwargs.get("generation_config"), getattr(model, "generation_config", None)):
        stated = kwargs.get("max_new_tokens") or getattr(source, "max_new_tokens", None)
        if stated:
            return int(stated)
    return None
