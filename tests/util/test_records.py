"""Our ``dataclass`` against the standard library's, on the same class bodies."""

import copy
import dataclasses
import inspect
import pickle
import sys

import pytest

from zero_sizer.util import records


def plain(dataclass):
    @dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        tags: list[str] = dataclasses.field(default_factory=list, compare=False)

    return Point


def keyword(dataclass):
    @dataclass(frozen=True, kw_only=True)
    class Point:
        x: int
        y: int = 2
        hidden: int = dataclasses.field(default=3, repr=False)

        def __post_init__(self):
            object.__setattr__(self, "y", self.y * 10)

    return Point


def slotted(dataclass):
    @dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 2

    return Point


def changing(dataclass):
    @dataclass
    class Point:
        x: int
        y: int = 2
        z: list[int] = dataclasses.field(default_factory=list, init=False)

    return Point


BODIES = (plain, keyword, slotted, changing)


@pytest.fixture(params=BODIES, ids=lambda body: body.__name__)
def both(request):
    """The same class by the standard decorator, and by ours."""
    return request.param(dataclasses.dataclass), request.param(records.dataclass)


def test_signatures_and_fields_are_the_same(both):
    def said(cls):
        parameters = inspect.signature(cls).parameters.values()
        names = [(p.name, p.kind, p.default is p.empty) for p in parameters]
        return names, [(f.name, f.compare, f.repr, f.init) for f in dataclasses.fields(cls)]

    assert said(both[0]) == said(both[1])


def test_values_compare_hash_and_print_the_same(both):
    for cls in both:
        one, same, other = cls(x=1), cls(x=1), cls(x=1, y=5)
        assert one == same
        assert one != other
        assert one != (1, 2)
        again = dataclasses.replace(other, x=7)
        assert again.x == 7
        assert type(again) is cls
    texts = [repr(cls(x=1, y=3)).split("Point")[-1] for cls in both]
    assert texts[0] == texts[1]
    assert (both[0].__hash__ is None) is (both[1].__hash__ is None)
    if both[1].__hash__:
        assert hash(both[1](x=1)) == hash(both[1](x=1))
        assert len({both[1](x=1), both[1](x=1)}) == 1


def test_frozen_ones_cannot_be_assigned_to(both):
    for cls in both:
        one = cls(x=1)
        if cls.__hash__ is None:
            one.x = 5
            assert one.x == 5
            continue
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.x = 5
        with pytest.raises(dataclasses.FrozenInstanceError):
            del one.x


def test_wrong_arguments_are_refused(both):
    for cls in both:
        with pytest.raises(TypeError):
            cls()
        with pytest.raises(TypeError):
            cls(x=1, unknown=2)


def test_each_gets_its_own_default(both):
    first, second = (both[1](x=1) for _ in range(2))
    for field in dataclasses.fields(both[1]):
        if field.default_factory is not dataclasses.MISSING:
            assert getattr(first, field.name) is not getattr(second, field.name)


@pytest.mark.parametrize("body", BODIES)
def test_copies_and_pickles_are_equal(body, monkeypatch):
    cls = body(records.dataclass)
    cls.__qualname__ = "Point"
    monkeypatch.setattr(sys.modules[__name__], "Point", cls, raising=False)
    one = cls(x=4)
    assert copy.copy(one) == one
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301
