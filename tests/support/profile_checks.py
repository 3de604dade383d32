"""Profiles beside what whole models show, which a process of its own traces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zero_sizer import models

ROOT = Path(__file__).parents[2]
TRACES = Path(__file__).parent / "profile_traces.py"


def traced_cases(cases, folder, own=None):
    """Name -> what ``profile_traces.py`` prints for a case of that name.

    ``own``: a config that it traces first, into the user's cache, and that cache.
    """
    path = folder / "cases.json"
    config, cache = own or (None, None)
    more = {} if own is None else {"XDG_CACHE_HOME": str(cache)}
    path.write_text(json.dumps(list(cases.values())), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(TRACES), str(path), *([] if own is None else [str(config)])],
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True))


def spec_of(fields, folder):
    path = folder / "config.json"
    path.write_text(json.dumps(fields), encoding="utf-8")
    return models.load(str(path))


def assert_seen(profile, traces):
    for seen in traces:
        variant, attention, checkpointing = seen["setup"]
        step = profile.evaluate(variant, attention, *seen["at"], checkpointing=checkpointing)
        where = (seen["setup"], seen["at"])
        # Storages are rounded to 512 bytes one by one in the trace, and ids are copied for b > 1.
        rounding = 512 * 8 * sum(profile.depths.values()) + 16 * seen["at"][1]
        assert step.saved == pytest.approx(seen["saved"], abs=rounding), where
        assert step.forward_peak == pytest.approx(seen["forward_peak"], abs=rounding), where
        assert step.backward_peak == pytest.approx(seen["backward_peak"], abs=rounding), where
        assert step.forward_flops + step.backward_flops == seen["flops"], where
        assert rounding < 0.005 * seen["backward_peak"]
