"""pytest plugin: jobs that have to fit are tests.

``@pytest.mark.fits(config, model=..., gpu=..., nodes=...)`` fails a test whose job does not fit,
the fixture ``job_fits`` does so for jobs that a test makes, and ``--zero-sizer FILE`` makes a test
of a job file. Nothing of zero_sizer is imported before one of them is used.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from zero_sizer.api import CheckResult

_FILES = "zero_sizer_files"
_UNCERTAIN = "zero_sizer_allow_uncertain"
_COULD_NOT_TELL = "uncertain"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare ``--zero-sizer``."""
    group = parser.getgroup("zero-sizer", "jobs that have to fit")
    group.addoption(
        "--zero-sizer",
        metavar="FILE",
        action="append",
        default=[],
        dest=_FILES,
        help="make a test of this job YAML: it fails where the job does not fit; may be repeated",
    )
    group.addoption(
        "--zero-sizer-allow-uncertain",
        action="store_true",
        dest=_UNCERTAIN,
        help="let jobs pass of which nobody can tell whether they fit",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and have the job files collected."""
    config.addinivalue_line(
        "markers",
        "fits(config, *, allow_uncertain=False, **keywords): the job has to fit; config and "
        "keywords as of zero_sizer.check",
    )
    for path in _job_files(config):
        if str(path) not in config.args:
            config.args.append(str(path))


def _job_files(config: pytest.Config) -> list[Path]:
    given: list[str] = config.getoption(_FILES)
    return [config.invocation_params.dir / name for name in given]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "_JobFile | None":
    """A job file that was named becomes one test."""
    named = {path.resolve() for path in _job_files(parent.config)}
    if file_path.resolve() not in named:
        return None
    found: _JobFile = _JobFile.from_parent(parent, path=file_path)
    return found


class _JobFile(pytest.File):
    def collect(self) -> Iterable[pytest.Item]:
        yield _JobItem.from_parent(self, name="fits")


class _JobItem(pytest.Item):
    def runtest(self) -> None:
        _require(self.config, self.path, allow_uncertain=False, keywords={})

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.name} fits"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a marked test whose job does not fit, before its body runs.

    A marker with nothing in it is no job: projects about other things have one of this name.
    """
    for marker in item.iter_markers("fits"):
        if marker.args or marker.kwargs:
            _require_marked(item, marker)


def _require_marked(item: pytest.Item, marker: pytest.Mark) -> None:
    keywords = dict(marker.kwargs)
    if len(marker.args) > 1:
        pytest.fail("@pytest.mark.fits takes one config; all else is a keyword", pytrace=False)
    config = marker.args[0] if marker.args else keywords.pop("config", None)
    allow = bool(keywords.pop("allow_uncertain", False))
    found = _beside(item.path, item.config, config)
    _require(item.config, found, allow_uncertain=allow, keywords=keywords)


@pytest.fixture
def job_fits(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``job_fits(config, **keywords)``: the answer of ``zero_sizer.check``, if the job fits."""

    def require(config: Any, *, allow_uncertain: bool = False, **keywords: Any) -> Any:
        found = _beside(request.path, request.config, config)
        return _require(request.config, found, allow_uncertain=allow_uncertain, keywords=keywords)

    return require


def _beside(test: Path, config: pytest.Config, named: Any) -> Any:
    """The config; a relative path is one beside the test, else one of the project."""
    if not isinstance(named, str | Path) or Path(named).is_absolute():
        return named
    beside = test.parent / named
    return beside if beside.exists() else config.rootpath / named


def _require(
    config: pytest.Config, named: Any, *, allow_uncertain: bool, keywords: dict[str, Any]
) -> Any:
    """The answer, or the sweep of answers; the test fails where one of them does not fit."""
    import zero_sizer
    from zero_sizer.api import Sweep

    try:
        found = zero_sizer.check(named, **keywords)
    except zero_sizer.JobError as error:
        pytest.fail(f"zero-sizer: {error}", pytrace=False)
    allow = allow_uncertain or config.getoption(_UNCERTAIN)
    results: Iterable[Any] = found.results if isinstance(found, Sweep) else (found,)
    wrong = list(_wrong(results, allow))
    if wrong:
        pytest.fail("\n\n".join(wrong), pytrace=False)
    return found


def _wrong(results: "Iterable[CheckResult]", allow_uncertain: bool) -> Iterator[str]:
    for result in results:
        is_open = result.verdict == _COULD_NOT_TELL and result.valid
        if not result.fits and not (is_open and allow_uncertain):
            yield str(result)
