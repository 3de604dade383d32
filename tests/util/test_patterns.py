"""User patterns answer as ``re`` does, in bounded work."""

import re
import warnings

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zero_sizer.util import patterns
from zero_sizer.util.patterns import Budget, Pattern, PatternError
from zero_sizer.util.patterns.machine import Machine

ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\.", r"\w", r"\d", "^", "$", r"\b", "(?i:A)", "(?<=a)"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("({0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{1,3}", "{2}", "{0,2}?"])).map(
            "(?:{0[0]}){0[1]}".format
        ),
        inner.map("(?={})".format),
        inner.map("(?!{})".format),
    ),
    max_leaves=8,
)
NAME = "model.layers.{}.self_attn.q_proj"


@given(PATTERNS, st.text("ab.1A", max_size=8), st.booleans())
def test_the_bounded_matcher_says_what_re_says(text, name, whole):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = re.compile(text)
    machine = Machine(patterns._parse(text), compiled.groups)
    found, _ = machine.run(name, whole=whole, most=10**6)
    expected = (compiled.fullmatch if whole else compiled.match)(name)
    assert (found is None) == (expected is None)


@given(PATTERNS, st.text("ab.1A", max_size=8))
def test_either_way_the_answer_is_the_same(text, name):
    try:
        found = Pattern(text).matches_all(name)
    except PatternError:
        assume(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found == bool(re.fullmatch(text, name))


@pytest.mark.parametrize("place", ["layers", "h", "(?:a|layers)"])
def test_the_first_group_is_the_same_either_way(place, monkeypatch):
    text = rf"(?:^|.*?\.){place}\.(\d+)\."
    names = [NAME.format(i) for i in range(12)] + ["h.3.layers.4.x", "a.b", "layers.7.x"]
    by_re = [Pattern(text).groups(name) for name in names]
    monkeypatch.setattr(patterns, "_FOR_RE", -1)
    assert [Pattern(text).groups(name) for name in names] == by_re
    assert [found.groups() if (found := re.match(text, name)) else None for name in names] == by_re


@pytest.mark.parametrize(
    "text",
    [r"(([a-z.0-9_]+)+)+X", "(.*)*(.*)*(.*)*(.*)*(.*)*x", "(.*a*)*(.*)*(.*)*X", r"(\w+\.?)+!"],
)
def test_endless_ways_take_states_times_characters(text):
    budget = Budget()
    pattern = Pattern(text, budget)
    before = budget.left
    assert not pattern.matches_all("a" * 100)
    steps = (before - budget.left) / patterns._STEP
    assert steps <= len(pattern._machine._states) * 101


def test_patterns_that_people_write_stay_with_re(monkeypatch):
    """So that a check does not become slower: the matcher here is ten times as slow as ``re``."""
    monkeypatch.setattr(patterns, "Machine", None)
    for text in (
        r".*\.(self_attn|mlp)\.(q|k|v|o|up|down|gate)_proj",
        r"^(?!.*vision).*(?:q_proj|v_proj)$",
        r"(.*\.)?(layers.11.self_attn.q_proj)$",
        r"model\.layers\.(\d|1\d|2[0-3])\.self_attn\.[qv]_proj",
    ):
        assert Pattern(text).matches_all(NAME.format(11))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("(", "is no regular expression"),
        ("a{99999999999999999999}", "cannot be read"),
        ("(" * 4000 + ")" * 4000, "nested too deeply"),
        ("a" * 10_001, "longer than"),
        ("a(?i)b", "global flags"),
        ("(?:(?:a{1000}){1000}){1000}(b*)*c", "too large"),
        (r"((a)\2*)*b", "bounded time"),
    ],
)
def test_what_is_not_read_is_said(text, says):
    with pytest.raises(PatternError, match=says):
        Pattern(text).matches_all("a" * 60)


def test_a_budget_ends():
    with pytest.raises(PatternError, match="takes too long"):
        Pattern("(a*)*b", Budget(1_000_000)).matches_all("a" * 5000)
