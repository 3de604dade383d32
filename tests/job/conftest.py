"""Files that the tests of job readers write."""

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a text under a name; gives its path."""

    def write(text: str, name: str = "job.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write
