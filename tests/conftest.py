"""Settings every test runs under: no network, no clock."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.warm import left_behind, warmed

from zero_sizer.util.gc_paused import keep_old_objects

# Before any test imports transformers: a name that is not on disk must fail, not be looked up.
os.environ["HF_HUB_OFFLINE"] = "1"
# Answers are compared as plain text of one width; readline, once imported, sets workers' COLUMNS.
for name in ("FORCE_COLOR", "COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A busy machine makes wall-clock limits a coin toss; in CI the examples are the same each time.
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "local")

gc.set_threshold(100_000, 50, 100)  # imports of torch and thousands of tests make few cycles


@pytest.fixture(scope="session", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with warmed(tmp_path_factory.mktemp("warm")):
        yield


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """Keeps what lives for the session out of later collections, of which tracing asks for many."""
    gc.collect()
    keep_old_objects()


@pytest.fixture(scope="module", autouse=True)
def _forks_go_on(_warm: None) -> Iterator[None]:
    """A file that left a variable behind would make every later simulated run import torch anew."""
    yield
    assert left_behind() == {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that workers end together and not on a long file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
