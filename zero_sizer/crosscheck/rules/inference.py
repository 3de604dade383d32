"""Rules about inference, in reading order."""

from zero_sizer.config.workload import INFERENCE
from zero_sizer.crosscheck.rules.record import Formula, Numbers, Rule, stores
from zero_sizer.hardware.device import Device
from zero_sizer.sizing import Sizing

_CACHE = "kv_cache_in_"


def _peak(sizing: Sizing) -> int:
    return sizing.peaks[Device.GPU].num_bytes


def _cache(sizing: Sizing) -> int:
    found = [a.num_bytes for a in sizing.allocations if a.name.startswith(_CACHE)]
    return max(found, default=0)


def _all_heads(n: Numbers) -> float:
    return 2 * n.layers * n.bsd * n.weight_bytes


def _times(factor: float, weight_bytes: float) -> Formula:
    return lambda n: factor * weight_bytes * n.params


INFERENCE_RULES = (
    Rule(
        name="KV cache",
        text="2 L bsd x bytes of a value",
        quantity="KV cache",
        formula=_all_heads,
        ledger=_cache,
        why="all heads: grouped queries keep those of keys and values alone, a window its length, "
        "and the last token is never cached",
        when=lambda p: bool(p.model.arch.hidden and p.new_tokens),
        tasks=(INFERENCE,),
    ),
    *(
        Rule(
            name=f"inference in {label}",
            text=f"1.2 to 1.3 x {num_bytes:g} bytes x P",
            quantity="everything",
            formula=_times(1.2, num_bytes),
            highest=_times(1.3, num_bytes),
            ledger=_peak,
            why="cache and activations grow with batch and tokens, not with P; embeddings and head "
            "are not packed, and the CUDA context is outside of the ledger's",
            when=stores(bits),
            tasks=(INFERENCE,),
        )
        for label, num_bytes, bits in (
            ("fp32", 4, 32),
            ("fp16", 2, 16),
            ("int8", 1, 8),
            ("int4", 0.5, 4),
        )
    ),
)
