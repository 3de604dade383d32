"""What lies there while a model is built and pinned, by kinds and from the end, step by step."""

from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.units import next_power_of_two
from zero_sizer.zero import construction

MODULES = st.lists(st.lists(st.sampled_from((1, 5, 64, 1000)), max_size=3), max_size=12)


def built(modules, ranks, wider, group, *, is_parked):
    """Module by module, tensor by tensor."""
    most = held = 0
    for module in modules:
        whole = 0
        for numel in module:
            most = max(most, held + whole + numel * (1 + wider))
            whole += numel
        for numel in module:
            part = 0 if is_parked else construction.partition_numel(numel, ranks, group)
            most = max(most, held + whole + part)
            whole, held = whole - numel, held + part
    return most


@given(MODULES, st.integers(1, 9), st.integers(0, 2), st.booleans())
def test_the_last_module_of_each_kind_tells_the_most(modules, ranks, wider, is_parked):
    found = construction.Modules(modules)
    for group in (0, 1):
        most = found.most_being_built(ranks, is_parked=is_parked, wider=wider, group=group)
        assert most == built(modules, ranks, wider, group, is_parked=is_parked)


@given(st.lists(st.integers(0, 5000), max_size=20))
def test_what_is_pinned_last_tells_the_most_beyond_all(parts):
    most = construction.most_being_pinned(parts) - sum(map(next_power_of_two, parts))
    assert construction.beyond_pinned(parts[::-1], max(parts, default=0)) == most
