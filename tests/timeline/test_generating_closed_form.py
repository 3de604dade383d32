"""The closed form of models that nobody traced, where it can be compared with a profile."""

import random

import pytest

from zero_sizer.activations import inference
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.plan.inference import plan_inference
from zero_sizer.timeline import generating

NAMES = ("gpt2", "opt-1.3b", "llama-3-8b", "qwen2.5-0.5b", "gemma-2-2b", "falcon-7b", "mistral-7b")


@pytest.mark.parametrize("seed", range(30))
def test_it_is_within_what_the_verdict_allows(seed, monkeypatch):
    drawn = random.Random(seed)
    flags = Flags(
        task="inference",
        model=drawn.choice(NAMES),
        prompt=drawn.randint(4, 900),
        new_tokens=drawn.choice((0, 1, 8)),
        batch_size=drawn.choice((1, 2, 8, 32)),
        attention=drawn.choice(("sdpa", "eager")),
        precision=drawn.choice(("bf16", "fp32")),
    )
    job = without_config({}, flags)

    def heights():
        plan = plan_inference(job).plan
        return [h.num_bytes for h in (generating.of_prefill(plan), generating.of_decode(plan))]

    by_profile = heights()
    monkeypatch.setattr(inference, "load", lambda spec: None)
    for expected, found in zip(by_profile, heights(), strict=True):
        assert 4 / 9 * expected <= found <= 2 * expected
