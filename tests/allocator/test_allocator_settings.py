import re
from pathlib import Path

import pytest

from zero_sizer.allocator.settings import KNOWN_OPTIONS, AllocatorSettings, parse_alloc_conf
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.units import MIB

VALID = [
    "",
    "max_split_size_mb:20",
    "max_split_size_mb:128 , expandable_segments:True",
    "large_segment_size_mb:11",
    "max_split_size_mb:12,large_segment_size_mb:12",
    "max_non_split_rounding_mb:30",
    "garbage_collection_threshold:0.8",
    "roundup_power2_divisions:8",
    "roundup_power2_divisions:[256:1,512:2,>:8]",
    "roundup_power2_divisions:[256:0]",
    "expandable_segments:True,expandable_segments:False",
    "expandable_segments:True,",
    "pinned_max_round_threshold_mb:0,pinned_max_cached_size_mb:8",
    "pinned_use_background_threads:True",
]
INVALID = [
    "max_split_size_mb:19",
    "max_split_size_mb:30,large_segment_size_mb:40",
    "max_split_size_mb:1e3",
    "max_split_size_mb:128;expandable_segments:True",
    "large_segment_size_mb:10",
    "max_non_split_rounding_mb:19",
    "garbage_collection_threshold:0",
    "garbage_collection_threshold:1.0",
    "roundup_power2_divisions:3",
    "roundup_power2_divisions:0",
    "roundup_power2_divisions:[256:3]",
    "roundup_power2_divisions:[200:2]",
    "roundup_power2_divisions:[0:1]",
    "expandable_segments:true",
    "expandable_segments",
    ",",
]


def test_values_reach_their_settings():
    text = "max_split_size_mb:128,expandable_segments:True,garbage_collection_threshold:0.6"
    assert parse_alloc_conf(text) == AllocatorSettings(
        max_split_size=128 * MIB, expandable_segments=True, garbage_collection_threshold=0.6
    )
    assert parse_alloc_conf("") == AllocatorSettings()


def test_divisions_by_interval_are_those_of_pytorchs_own_test():
    # c10/test/core/AllocatorConfig_test.cpp: the first interval also covers all below it, ">" all
    # above the last
    settings = parse_alloc_conf("roundup_power2_divisions:[64:8,128:2,256:4,512:2,1024:4,>:1]")
    per_mib = {32: 8, 64: 8, 128: 2, 256: 4, 512: 2, 1024: 4, 2048: 1, 4096: 1}
    assert {
        mib: settings.roundup_power2_divisions[mib.bit_length() - 1] for mib in per_mib
    } == per_mib


@pytest.mark.parametrize("text", [*INVALID, "backend:other", "per_process_memory_fraction:1.5"])
def test_what_pytorch_refuses_is_one_line_of_input_error(text):
    with pytest.raises(InputError) as caught:
        parse_alloc_conf(text)
    assert str(caught.value).startswith("PYTORCH_ALLOC_CONF: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_option_names_the_known_ones():
    with pytest.raises(InputError, match=r"'max_split_mb'.*max_split_size_mb"):
        parse_alloc_conf("max_split_mb:128")


def test_the_drivers_own_allocator_is_not_modelled():
    with pytest.raises(UnsupportedError, match="cudaMallocAsync"):
        parse_alloc_conf("backend:cudaMallocAsync")


@pytest.mark.slow
@pytest.mark.parametrize("text", VALID)
def test_pytorchs_parser_accepts_what_is_accepted(text, pytorch_parser):
    parse_alloc_conf(text)
    assert pytorch_parser(text)


@pytest.mark.slow
@pytest.mark.parametrize("text", INVALID)
def test_pytorchs_parser_refuses_what_is_refused(text, pytorch_parser):
    assert not pytorch_parser(text)


@pytest.mark.slow
def test_every_known_option_is_pytorchs(pytorch_parser):
    # the keys of CUDA builds stand in a header of every wheel, the common ones in the parser: it
    # knows a key if it refuses a senseless value
    torch = pytest.importorskip("torch")
    header = Path(torch.__path__[0], "include", "c10", "cuda", "CUDAAllocatorConfig.h")
    text = re.sub(r'"\s*"', "", header.read_text())
    for option in KNOWN_OPTIONS:
        assert f'"{option}"' in text or not pytorch_parser(f"{option}:senseless"), option


@pytest.fixture
def pytorch_parser():
    """Whether the installed PyTorch accepts a string; starts from its defaults each time."""
    torch = pytest.importorskip("torch")
    apply = torch._C._accelerator_setAllocatorSettings

    def accepts(text):
        apply("large_segment_size_mb:20,max_split_size_mb:20")
        try:
            apply(text)
        except (RuntimeError, ValueError, IndexError):
            return False
        return True

    yield accepts
    apply("large_segment_size_mb:20,expandable_segments:False,pinned_use_background_threads:False")
